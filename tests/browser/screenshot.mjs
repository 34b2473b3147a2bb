// Load workflows into the front end of a running ComfyUI and take screenshots.
//
//   node screenshot.mjs PLAYWRIGHT_FOLDER CHROMIUM URL WIDTHxHEIGHT WORKFLOW.json=PICTURE.png ...
//
// PLAYWRIGHT_FOLDER is a folder in which playwright-core was installed (npm install playwright-core). With --nodes2 before the files the
// newer nodes in HTML are used. Prints one JSON object per workflow: errors, unknown nodes, and nodes that overlap as drawn. Exits with 1 if
// there are any.
import { readFileSync } from 'node:fs'
import { pause } from './chromium.mjs'
import { fitAndCheck, open, settled } from './front_end.mjs'

const [playwright, chromium, url, size, ...rest] = process.argv.slice(2)
const nodes2 = rest[0] === '--nodes2'
const jobs = (nodes2 ? rest.slice(1) : rest).map((job) => job.split('='))
const settings = { 'Comfy.Graph.CanvasMenu': false, 'Comfy.VueNodes.Enabled': nodes2 }
const { page, takeErrors, close } = await open(url, playwright, chromium, { size: size.split('x').map(Number), settings })
let failed = false
try {
  await settled(page, url)
  await page.evaluate(() => window.app.extensionManager.command.execute('Workspace.ToggleFocusMode'))
  for (const [file, picture] of jobs) {
    takeErrors()
    await page.evaluate((graph) => window.app.loadGraphData(graph, true, true), JSON.parse(readFileSync(file)))
    await pause(page, 2500)
    const layout = await page.evaluate(fitAndCheck)
    await pause(page, 1500)
    await page.screenshot({ path: picture })
    const { errors } = takeErrors()
    failed ||= layout.unknown.length > 0 || layout.overlapping.length > 0 || errors.length > 0
    console.log(JSON.stringify({ file, ...layout, errors }))
  }
} finally {
  await close()
}
process.exit(failed ? 1 : 0)

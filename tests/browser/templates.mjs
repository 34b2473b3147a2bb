// Open templates from the template browser of a running ComfyUI, take screenshots, and run some of them.
//
//   node templates.mjs PLAYWRIGHT_FOLDER CHROMIUM URL PICTURES [--nodes2] [--light] [--load] NAME[:run] ...
//
// PICTURES is a folder. With --load graphs are loaded without the template browser, because older front ends have it elsewhere. Prints one JSON
// object for the start and one per template: errors of the console, unknown nodes, nodes that overlap or leave their frame, and for templates
// that were run the seconds it took and the number of pictures on each node.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pause } from './chromium.mjs'
import { fitAndCheck, open, openTemplate, pictures, run, scripts, visit } from './front_end.mjs'

const [playwright, chromium, url, folder, ...rest] = process.argv.slice(2)
const [nodes2, light, load] = ['--nodes2', '--light', '--load'].map((flag) => rest.includes(flag))
const jobs = rest.filter((word) => !word.startsWith('--')).map((word) => word.split(':'))
const settings = { 'Comfy.VueNodes.Enabled': nodes2, 'Comfy.ColorPalette': light ? 'light' : 'dark' }
const { page, takeErrors, close, fetched } = await open(url, playwright, chromium, { size: [1600, 900], settings })
try {
  await visit(page, url)
  console.log(JSON.stringify({ start: await scripts(fetched, url), ...takeErrors() }))
  for (const [name, action] of jobs) {
    const started = Date.now()
    if (load) await page.evaluate((graph) => window.app.loadGraphData(graph, true, true), JSON.parse(readFileSync(new URL(`../../workflows/${name}.json`, import.meta.url))))
    else await openTemplate(page, name)
    const opened = (Date.now() - started) / 1000
    await pause(page, 1500) // until the widgets are laid out
    let report = { name, opened, ...(await page.evaluate(fitAndCheck)) }
    if (action === 'run') report = { ...report, ...(await run(page)), pictures: await pictures(page) }
    await pause(page, 700)
    await page.screenshot({ path: join(folder, `${name}.png`) })
    console.log(JSON.stringify({ ...report, ...takeErrors() }))
  }
} finally {
  await close()
}

// Load workflows into the real front end of a running ComfyUI and photograph them.
//
//   node screenshot.mjs URL PLAYWRIGHT_FOLDER CHROMIUM WIDTHxHEIGHT WORKFLOW.json=PICTURE.png ...
//
// PLAYWRIGHT_FOLDER is a folder in which playwright-core was installed (npm install playwright-core). With --nodes2 before the files the
// newer, HTML-drawn nodes are used. Prints one JSON object per workflow: errors, unknown nodes, and nodes that overlap as drawn; exits
// with 1 where there are any.
import { createRequire } from 'node:module'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const [url, playwright, chromium, size, ...rest] = process.argv.slice(2)
const nodes2 = rest[0] === '--nodes2'
const jobs = (nodes2 ? rest.slice(1) : rest).map((job) => job.split('='))
const [width, height] = size.split('x').map(Number)
const { chromium: browser } = createRequire(join(resolve(playwright), 'here.js'))('playwright-core')

// a new user is shown a tour and the templates; a picture of a graph needs neither
const settings = {
  'Comfy.TutorialCompleted': true,
  'Comfy.Minimap.Visible': false,
  'Comfy.Graph.CanvasInfo': false,
  'Comfy.Graph.CanvasMenu': false,
  'Comfy.VueNodes.Enabled': nodes2
}
await fetch(`${url}/settings`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(settings) })

const profile = mkdtempSync(join(tmpdir(), 'equipoise-browser-'))
const context = await browser.launchPersistentContext(profile, {
  executablePath: chromium,
  headless: true,
  viewport: { width, height },
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']
})
let failed = false
try {
  const page = context.pages()[0] ?? (await context.newPage())
  let errors = []
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()))
  page.on('pageerror', (error) => errors.push(String(error)))
  await page.goto(url)
  await page.waitForFunction(() => window.app?.isGraphReady, null, { timeout: 180_000 })
  await page.waitForTimeout(5000) // its extensions, and the default graph
  await page.keyboard.press('Escape')
  await page.evaluate(() => window.app.extensionManager.command.execute('Workspace.ToggleFocusMode'))
  for (const [file, picture] of jobs) {
    errors = []
    await page.evaluate((graph) => window.app.loadGraphData(graph, true, true), JSON.parse(readFileSync(file)))
    await page.waitForTimeout(2500)
    const found = await page.evaluate(fitAndCheck)
    await page.waitForTimeout(1500)
    await page.screenshot({ path: picture })
    const report = { file, nodes: found.nodes, unknown: found.unknown, overlapping: found.overlapping, errors }
    failed ||= report.unknown.length > 0 || report.overlapping.length > 0 || errors.length > 0
    console.log(JSON.stringify(report))
  }
} finally {
  await context.close()
  rmSync(profile, { recursive: true, force: true })
}
process.exit(failed ? 1 : 0)

// Runs in the page: bring the whole graph into view; which nodes are unknown, and which overlap at the sizes they are drawn at.
function fitAndCheck() {
  const { graph, canvas } = window.app
  const title = 30
  const boxes = graph._nodes.map((n) => [n.pos[0], n.pos[1] - title, n.pos[0] + n.size[0], n.pos[1] + n.size[1]])
  const frames = graph._groups.map((g) => [g.pos[0], g.pos[1], g.pos[0] + g.size[0], g.pos[1] + g.size[1]])
  const overlapping = []
  for (let i = 0; i < boxes.length; i++)
    for (let j = i + 1; j < boxes.length; j++) {
      const [a, b] = [boxes[i], boxes[j]]
      if (a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]) overlapping.push([graph._nodes[i].title, graph._nodes[j].title])
    }
  const all = [...boxes, ...frames]
  const left = Math.min(...all.map((b) => b[0])), top = Math.min(...all.map((b) => b[1]))
  const right = Math.max(...all.map((b) => b[2])), bottom = Math.max(...all.map((b) => b[3]))
  const view = canvas.canvas.getBoundingClientRect(), margin = 16
  const scale = Math.min((view.width - 2 * margin) / (right - left), (view.height - 2 * margin) / (bottom - top))
  canvas.ds.scale = scale
  canvas.ds.offset = [(view.width / scale - (right - left)) / 2 - left, (view.height / scale - (bottom - top)) / 2 - top]
  canvas.setDirty(true, true)
  const unknown = graph._nodes.filter((n) => n.has_errors || !window.LiteGraph.registered_node_types[n.type]).map((n) => n.type)
  return { nodes: graph._nodes.length, unknown, overlapping }
}

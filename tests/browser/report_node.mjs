// Run Fairness Report on plain images in the front end of a running ComfyUI, and open the report from the node.
//
//   node report_node.mjs PLAYWRIGHT_FOLDER CHROMIUM URL classic|vue PICTURE_PREFIX
//
// Prints one JSON object: the size of the picture on the node, the texts of the links on it before and after another tab was open, the title
// of the page that the link opens, and errors. With an empty PICTURE_PREFIX no pictures are taken.
import { pause } from './chromium.mjs'
import { open, pictures, settled } from './front_end.mjs'

const [playwright, chromium, url, renderer, prefix] = process.argv.slice(2)
const { page, takeErrors, close } = await open(url, playwright, chromium, { size: [1600, 1000], settings: { 'Comfy.VueNodes.Enabled': renderer === 'vue' } })
const seen = {}
try {
  await settled(page, url)
  await page.evaluate(build)
  await pause(page, 500)
  seen.ended = await page.evaluate(run)
  await pictures(page)
  await pause(page, 500)
  seen.picture = await page.evaluate(picture)
  seen.links = await page.evaluate(links)
  if (prefix) await page.screenshot({ path: `${prefix}.png` })
  if (seen.links.length) {
    const [report] = await Promise.all([page.context().waitForEvent('page'), page.locator('.equipoise-open').first().click()])
    await report.waitForLoadState()
    seen.title = await report.title()
    seen.sections = await report.locator('h2').count()
    await report.close()
  }
  await page.evaluate(leave)
  await pause(page, 1000)
  seen.elsewhere = await page.evaluate(links)
  await page.evaluate(comeBack)
  await pause(page, 1000)
  seen.back = await page.evaluate(links)
  console.log(JSON.stringify({ ...takeErrors(), seen }))
} finally {
  await close()
}

// The functions below run in the page.

function build() {
  const { app, LiteGraph } = window
  app.graph.clear()
  const add = (type, x, values = {}) => {
    const node = LiteGraph.createNode(type)
    node.pos = [x, 100]
    app.graph.add(node)
    for (const [name, value] of Object.entries(values)) node.widgets.find((w) => w.name === name).value = value
    return node
  }
  const link = (from, to, name) => from.connect(0, to, to.inputs.findIndex((input) => input.name === name))
  const [black, white] = [0, 0xffffff].map((color, i) => add('EmptyImage', 40 + 300 * i, { width: 64, height: 64, batch_size: 6, color }))
  const judge = add('EquipoiseLoadAttributeClassifier', 640)
  const report = add('EquipoiseFairnessReport', 1000)
  link(black, report, 'base')
  link(white, report, 'steered')
  link(judge, report, 'classifier')
  app.canvas.ds.scale = 0.7
  app.canvas.ds.offset = [100, 50]
  app.canvas.setDirty(true, true)
}

async function run() {
  const { app } = window
  const ended = new Promise((resolve) => {
    for (const kind of ['execution_success', 'execution_error']) app.api.addEventListener(kind, ({ detail }) => resolve([kind, detail.exception_message ?? '']), { once: true })
  })
  await app.queuePrompt(0)
  return ended
}

// Load the picture that the server sent for the node: [width, height].
async function picture() {
  const { app } = window
  const [image] = Object.values(app.nodeOutputs).find((output) => output.images?.length).images
  const element = new Image()
  element.src = app.api.apiURL(`/view?${new URLSearchParams(image)}`)
  await element.decode()
  return [element.naturalWidth, element.naturalHeight]
}

function links() {
  return [...document.querySelectorAll('.equipoise-open')].filter((link) => link.getBoundingClientRect().width > 0).map((link) => link.textContent)
}

// Open the same workflow in another tab.
async function leave() {
  const { app } = window
  window.first = app.extensionManager.workflow.activeWorkflow
  await app.loadGraphData(app.graph.serialize(), true, true, 'another')
}

async function comeBack() {
  const { app, first } = window
  await app.loadGraphData(JSON.parse(JSON.stringify(first.activeState)), true, true, first)
}

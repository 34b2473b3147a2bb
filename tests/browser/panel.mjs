// Select a node with an editor, open the properties panel on its parameters, and close it again.
//
//   node panel.mjs PLAYWRIGHT_FOLDER CHROMIUM URL classic|vue PICTURE_PREFIX
//
// Prints one JSON object: the editor's size and place before, while the panel is open and after, the fields that each tab of the panel shows,
// and errors. With an empty PICTURE_PREFIX no pictures are taken.
import { pause } from './chromium.mjs'
import { open, settled } from './front_end.mjs'

const [playwright, chromium, url, renderer, prefix] = process.argv.slice(2)
const settings = { 'Comfy.VueNodes.Enabled': renderer === 'vue', 'Comfy.RightSidePanel.IsOpen': false }
const { page, takeErrors, close } = await open(url, playwright, chromium, { size: [1600, 1000], settings })
const seen = {}
try {
  await settled(page, url)
  await page.evaluate(build)
  await page.waitForFunction(() => document.querySelectorAll('.equipoise-share').length >= 2)
  await pause(page, 800)
  const panel = page.getByTestId('properties-panel')
  const note = async (name) => {
    await pause(page, 800)
    seen[name] = { ...(await page.evaluate(look)), fields: await panel.locator('.widget-item').allInnerTexts() }
    if (prefix) await page.screenshot({ path: `${prefix}_${name}.png` })
  }
  await note('before')
  await page.getByTestId('info-button').click()
  await page.getByTestId('panel-tab-parameters').click()
  await note('selected')
  await page.evaluate(() => window.app.canvas.deselectAll())
  await panel.getByTestId('panel-tab-nodes').click()
  await panel.getByRole('button', { name: 'target' }).first().click()
  await note('all')
  await page.evaluate(wrap)
  await panel.getByTestId('panel-tab-parameters').click()
  await panel.locator('button', { hasText: /advanced inputs/i }).first().click()
  await note('subgraph')
  await page.evaluate(() => window.app.extensionManager.setting.set('Comfy.RightSidePanel.IsOpen', false))
  await page.evaluate(enter)
  await note('after')
  console.log(JSON.stringify({ ...takeErrors(), seen }))
} finally {
  await close()
}

// The functions below run in the page.

function build() {
  const { app, LiteGraph } = window
  app.graph.clear()
  const node = LiteGraph.createNode('EquipoiseTargetDistribution')
  node.title = 'target'
  node.pos = [500, 200]
  app.graph.add(node)
  app.canvas.ds.scale = 1
  app.canvas.ds.offset = [0, 0]
  app.canvas.selectNode(node)
  app.canvas.setDirty(true, true)
}

// Put the node into a subgraph, and select the subgraph.
function wrap() {
  const { app } = window
  const { node } = app.graph.convertToSubgraph(new Set([app.graph._nodes[0]]))
  app.canvas.deselectAll()
  app.canvas.selectNode(node)
}

function enter() {
  const { canvas, graph } = window.app
  const node = graph._nodes[0]
  canvas.openSubgraph(node.subgraph, node)
  canvas.ds.scale = 1
  canvas.setDirty(true, true)
}

function look() {
  const editor = document.querySelector('.equipoise-editor')
  return {
    size: [editor?.offsetWidth, editor?.offsetHeight],
    onNode: Boolean(editor && !editor.closest('[data-testid="properties-panel"]'))
  }
}

// Look at the sockets of two linked nodes under two palettes, and search the node menu.
//
//   node menu.mjs PLAYWRIGHT_FOLDER CHROMIUM URL classic|vue PICTURE_PREFIX WORD...
//
// Takes the pictures PICTURE_PREFIX_dark.png and PICTURE_PREFIX_light.png. Prints one JSON object: where sockets lie in them, what each word
// finds (null if the front end has no search of this kind), and errors.
import { pause } from './chromium.mjs'
import { open, settled } from './front_end.mjs'

const [playwright, chromium, url, renderer, prefix, ...words] = process.argv.slice(2)
const settings = { 'Comfy.ColorPalette': 'dark', 'Comfy.VueNodes.Enabled': renderer === 'vue' }
const { page, takeErrors, close } = await open(url, playwright, chromium, { size: [1400, 900], settings })
try {
  await settled(page, url)
  await page.evaluate(() => window.app.extensionManager.command.execute('Workspace.ToggleFocusMode'))
  await page.evaluate(build)
  await pause(page, 1500)
  const places = {}
  for (const palette of ['dark', 'light']) {
    await page.evaluate((name) => window.app.extensionManager.setting.set('Comfy.ColorPalette', name), palette)
    await pause(page, 1500)
    places[palette] = await page.evaluate(renderer === 'vue' ? dots : slots)
    await page.screenshot({ path: `${prefix}_${palette}.png` })
  }
  const found = await page.evaluate(search, words)
  console.log(JSON.stringify({ ...takeErrors(), places, found }))
} finally {
  await close()
}

// What follows runs in the page.

function build() {
  const { app, LiteGraph } = window
  app.graph.clear()
  const add = (type, x, y) => {
    const node = LiteGraph.createNode(type)
    node.pos = [x, y]
    app.graph.add(node)
    return node
  }
  const adp = add('EquipoiseLoadADP', 100, 100)
  const target = add('EquipoiseTargetDistribution', 600, 100)
  adp.connect(0, target, 0)
  app.canvas.ds.scale = 1
  app.canvas.ds.offset = [0, 0]
  app.canvas.setDirty(true, true)
}

// Centres of the first sockets: an output with a link, and an output without one.
function slots() {
  const { canvas, graph } = window.app
  const { left, top } = canvas.canvas.getBoundingClientRect()
  return graph._nodes.map((node) => {
    const [x, y] = node.getConnectionPos(false, 0)
    return [left + x + canvas.ds.offset[0], top + y + canvas.ds.offset[1]]
  })
}

function dots() {
  return window.app.graph._nodes.map(({ id }) => {
    const { x, y, width, height } = document.querySelector(`[data-node-id="${id}"] .lg-slot--output .slot-dot`).getBoundingClientRect()
    return [x + width / 2, y + height / 2]
  })
}

function search(words) {
  const stores = document.getElementById('vue-app').__vue_app__.config.globalProperties.$pinia._s
  const service = stores.get('nodeDef').nodeSearchService
  if (!stores.get('nodeDef').nodeDefsByName.EquipoiseLoadADP.search_aliases) return null
  return Object.fromEntries(words.map((word) => [word, service.searchNode(word).map((node) => node.name)]))
}

// Build a graph of targets, loaders, a steering node and an atlas in the front end of a running ComfyUI, and use the editors as a user does.
//
//   node editors.mjs PLAYWRIGHT_FOLDER CHROMIUM URL classic|vue dark|light SCALE PICTURE_PREFIX
//
// SCALE 2 is a browser zoomed to 200% (half the window, twice the pixels). With an empty PICTURE_PREFIX no pictures are taken. Prints one JSON
// object: the values of the plain fields after each action, what the front end saves and queues, and errors.
import { pause } from './chromium.mjs'
import { open, settled } from './front_end.mjs'

const [playwright, chromium, url, renderer, theme, scale, prefix] = process.argv.slice(2)
const settings = { 'Comfy.ColorPalette': theme, 'Comfy.VueNodes.Enabled': renderer === 'vue' }
const { page, takeErrors, close } = await open(url, playwright, chromium, { size: [1600 / scale, 1100 / scale], scale: +scale, settings })
const did = {}
try {
  await settled(page, url)
  await page.evaluate(() => window.app.extensionManager.command.execute('Workspace.ToggleFocusMode'))
  await page.evaluate(build, 1 / scale)
  const editor = (name) => page.locator(`.equipoise-editor[data-test="${name}"]`)
  await page.waitForFunction(() => document.querySelectorAll('.equipoise-share').length >= 9)
  await pause(page, 800)
  await page.evaluate(mark)
  const fields = (name) => page.evaluate(values, name)
  const settle = () => pause(page, 700) // longer than the interval in which the editor checks for changes
  const picture = async (name) => prefix && page.screenshot({ path: `${prefix}_${name}.png` })
  await picture('opened')
  did.untouched = await page.evaluate(saved)
  did.fits = await page.evaluate(fits)

  // by keyboard: raise the first slider by five per cent; Delete must not delete the node
  const first = editor('plain').locator('input[type=range]').first()
  await first.focus()
  for (let i = 0; i < 5; i++) await page.keyboard.press('ArrowRight')
  await page.keyboard.press('Delete')
  did.keyboard = await fields('plain')
  did.focusKept = await first.evaluate((e) => e === document.activeElement)
  did.named = await first.evaluate((e) => [e.getAttribute('aria-label'), e.getAttribute('aria-valuetext'), getComputedStyle(e).outlineStyle])

  // by mouse: drag the last slider to its end
  const last = editor('plain').locator('input[type=range]').last()
  const box = await last.boundingBox()
  const before = await page.evaluate(place, 'plain')
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2)
  await page.mouse.down()
  await page.mouse.move(box.x + box.width + 40, box.y + box.height / 2, { steps: 4 })
  await page.mouse.up()
  did.mouse = await fields('plain')
  did.nodeMoved = JSON.stringify(before) !== JSON.stringify(await page.evaluate(place, 'plain'))

  // three classes: lock one, set another by its number
  await editor('three').locator('[data-part^="lock"]').first().check()
  await editor('three').locator('input[type=number]').nth(1).fill('60')
  await page.keyboard.press('Tab')
  did.locked = await fields('three')

  // three equal shares, of which none is a whole number of tenths of a per cent
  await editor('three').locator('[data-part="even"]').click()
  await settle()
  did.thirds = await shown(editor('three'))

  // a joint table: a marginal, then a cell
  await editor('joint').locator('[data-part="number 0 0"]').fill('70')
  await page.keyboard.press('Tab')
  did.marginal = await fields('joint')
  await editor('joint').locator('[data-part="number cell 3"]').fill('45')
  await page.keyboard.press('Tab')
  did.cell = await fields('joint')
  did.totals = await editor('joint').locator('.equipoise-total').allTextContents()

  did.joined = await editor('joint').locator('.equipoise-note').allTextContents()

  // equal shares; then type weights into the plain field, and see that the editor follows
  await editor('plain').locator('[data-part="even"]').click()
  did.even = await fields('plain')
  await page.evaluate(type, ['plain', 'preset', 'weights'])
  await page.evaluate(type, ['plain', 'weights', 'yes=30%, what is this'])
  await settle()
  did.typed = await shown(editor('plain'))
  did.typedField = await fields('plain')
  await editor('plain').locator('input[type=number]').first().fill('40')
  await page.keyboard.press('Tab')
  did.typedEdited = await fields('plain')

  // choose another attribute in the editor; then type a name that the file does not have
  await editor('plain').locator('select').selectOption('skin_tone')
  await settle()
  did.attribute = await fields('plain')
  did.attributeShown = await shown(editor('plain'))
  await page.evaluate(type, ['plain', 'attribute', 'hats'])
  await settle()
  did.unknown = await shown(editor('plain'))
  did.unknownField = await fields('plain')

  // one attribute more in the same node, and one less again
  await page.evaluate(type, ['plain', 'attribute', 'hair'])
  await page.evaluate(type, ['plain', 'weights', 'short=0.2, long=0.8'])
  await settle()
  await editor('plain').locator('select').selectOption({ label: 'Several attributes ...' })
  did.severalFocus = await page.evaluate(() => document.activeElement.dataset.part)
  await editor('plain').locator('[data-part="attribute eyeglasses"]').check()
  await settle()
  did.several = await fields('plain')
  did.severalCells = await editor('plain').locator('[data-part^="number cell"]').evaluateAll((all) => all.map((e) => +e.value))
  await editor('plain').locator('[data-part="attribute eyeglasses"]').uncheck()
  await settle()
  did.severalLess = await fields('plain')
  await page.evaluate(type, ['plain', 'attribute', 'hats'])
  await settle()

  await editor('joint').locator('[data-part="attribute hair"]').uncheck()
  await settle()
  did.fewer = await fields('joint')
  await editor('joint').locator('[data-part="attribute hair"]').check()
  await settle()
  did.more = await fields('joint')

  // through a reroute, and with the link removed
  did.rerouted = await shown(editor('rerouted'))
  await page.evaluate(cut, 'rerouted')
  await settle()
  did.cutOff = await shown(editor('rerouted'))

  // features of the atlas, as a run of it would send them
  await page.evaluate(atlas)
  await pause(page, 500)
  await page.locator('.equipoise-features button').nth(1).click()
  await pause(page, 500)
  did.steer = await fields('steer')
  did.toast = await page.locator('.p-toast-detail').allTextContents()
  const feature = (i) => page.locator('.equipoise-features button').nth(i)
  await feature(2).click({ modifiers: ['Shift'] })
  did.steerTwo = await fields('steer')
  await feature(1).click({ modifiers: ['Shift'] })
  did.steerOther = await fields('steer')
  await feature(0).focus()
  await page.keyboard.press('Enter')
  did.steerByKey = await fields('steer')

  did.after = await page.evaluate(saved)
  did.prompt = await page.evaluate(async () => (await window.app.graphToPrompt()).output)
  await picture('used')

  // inside a subgraph, whose input leads out to the loader; then open the same graph again
  did.inside = await page.evaluate(intoSubgraph, 'three')
  did.reloaded = await page.evaluate(reload)
  console.log(JSON.stringify({ ...takeErrors(), ...did }))

  async function shown(where) {
    return {
      names: await where.locator('.equipoise-class-name').allTextContents(),
      shares: await where.locator('.equipoise-share input[type=number]').evaluateAll((all) => all.map((e) => +e.value)),
      notes: await where.locator('.equipoise-note').allTextContents()
    }
  }
} finally {
  await close()
}

// What follows runs in the page.

function build(scale) {
  const { app, LiteGraph } = window
  app.graph.clear()
  const add = (type, x, y, title, values = {}) => {
    const node = LiteGraph.createNode(type)
    node.pos = [x, y]
    node.title = title
    app.graph.add(node)
    for (const [name, value] of Object.entries(values)) node.widgets.find((w) => w.name === name).value = value
    return node
  }
  const link = (from, slot, to, name) => from.connect(slot, to, to.inputs.findIndex((input) => input.name === name))
  const adp = add('EquipoiseLoadADP', 0, 40, 'adp')
  const classifier = add('EquipoiseLoadAttributeClassifier', 0, 180, 'classifier')
  const bias = add('EquipoiseLoadBiasFeatures', 0, 320, 'bias')
  const reroute = add('Reroute', 120, 460, 'reroute')
  const plain = add('EquipoiseTargetDistribution', 320, 40, 'plain')
  add('EquipoiseTargetDistribution', 320, 420, 'three', { attribute: 'skin', weights: 'light=20%, medium=30%, dark=50%' })
  const joint = add('EquipoiseTargetDistribution', 760, 40, 'joint', { attribute: 'eyeglasses x hair', weights: 'yes/short=0.25\nyes/long=0.25\nno/short=0.25\nno/long=0.25' })
  const rerouted = add('EquipoiseTargetDistribution', 760, 640, 'rerouted')
  const steer = add('EquipoiseBiasFeatureSteer', 1200, 40, 'steer')
  const atlas = add('EquipoiseFeatureAtlas', 1200, 660, 'atlas')
  link(adp, 0, plain, 'adp')
  link(plain, 0, joint, 'with_target')
  link(classifier, 0, joint, 'classifier')
  bias.connect(0, reroute, 0)
  link(reroute, 0, rerouted, 'bias_features')
  link(bias, 0, steer, 'bias_features')
  link(bias, 0, atlas, 'bias_features')
  app.canvas.ds.scale = 0.95 * scale
  app.canvas.ds.offset = [20, 40]
  app.canvas.setDirty(true, true)
}

function mark() {
  for (const node of window.app.graph._nodes)
    node.widgets?.find((w) => w.name === 'equipoise_shares')?.element.querySelector('.equipoise-editor').setAttribute('data-test', node.title)
}

function values(title) {
  const node = window.app.graph._nodes.find((n) => n.title === title)
  return Object.fromEntries(node.widgets.filter((w) => w.serialize !== false).map((w) => [w.name, w.value]))
}

function place(title) {
  const node = window.app.graph._nodes.find((n) => n.title === title)
  return [[...node.pos], [...window.app.canvas.ds.offset]]
}

function type([title, name, value]) {
  const node = window.app.graph._nodes.find((n) => n.title === title)
  const widget = node.widgets.find((w) => w.name === name)
  widget.value = value
  widget.callback?.(value)
}

function cut(title) {
  const node = window.app.graph._nodes.find((n) => n.title === title)
  node.disconnectInput(node.inputs.findIndex((input) => input.name === 'bias_features'))
}

function atlas() {
  window.app.graph._nodes.find((n) => n.title === 'atlas').onExecuted({
    equipoise_features: [
      { feature: 12, attribute: 'hair', class_name: 'long' },
      { feature: 7, attribute: 'skin_tone', class_name: 'dark' },
      { feature: 3, attribute: 'skin_tone', class_name: 'dark' }
    ]
  })
}

function saved() {
  const { nodes } = window.app.graph.serialize()
  return Object.fromEntries(nodes.map((n) => [n.title ?? n.type, { size: [...n.size].map(Math.round), values: n.widgets_values, inputs: n.inputs?.map((i) => i.name) }]))
}

// List the editors that are cut off, because their content is wider or taller than their room.
function fits() {
  return [...document.querySelectorAll('.equipoise-editor[data-test]')].flatMap((content) => {
    const around = content.parentElement
    const [inner, outer] = [content.getBoundingClientRect(), around.getBoundingClientRect()]
    const bad = inner.height > outer.height + 2 || content.scrollWidth > content.clientWidth + 1 || inner.width < 50
    return bad ? [[content.dataset.test, inner.width, inner.height, outer.width, outer.height, content.scrollWidth, content.clientWidth]] : []
  })
}

// Put a target into a subgraph, with a link from outside, and return its editor's text. Null if the front end has no subgraphs.
async function intoSubgraph(title) {
  const { app } = window
  const target = app.graph._nodes.find((n) => n.title === title)
  const adp = app.graph._nodes.find((n) => n.type === 'EquipoiseLoadADP')
  adp.connect(0, target, target.inputs.findIndex((input) => input.name === 'adp'))
  if (!app.graph.convertToSubgraph) return null
  const { node } = app.graph.convertToSubgraph(new Set([target]))
  const root = app.canvas.graph
  const open = (graph) => (app.canvas.openSubgraph && graph !== root ? app.canvas.openSubgraph(graph, node) : app.canvas.setGraph(graph))
  open(node.subgraph)
  await new Promise((done) => setTimeout(done, 1500))
  const text = node.subgraph._nodes[0].widgets.find((w) => w.name === 'equipoise_shares').element.textContent
  open(root)
  await new Promise((done) => setTimeout(done, 500))
  return text
}

async function reload() {
  const before = window.app.graph.serialize()
  await window.app.loadGraphData(JSON.parse(JSON.stringify(before)), true, true)
  await new Promise((done) => setTimeout(done, 1500))
  const after = window.app.graph.serialize()
  const bare = ({ nodes }) => nodes.map((n) => [n.id, n.type, n.widgets_values, n.pos.map(Math.round)]).sort((a, b) => a[0] - b[0])
  return { same: JSON.stringify(bare(before)) === JSON.stringify(bare(after)), editors: document.querySelectorAll('.equipoise-editor').length }
}

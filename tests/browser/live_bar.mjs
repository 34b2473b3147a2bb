// Build a graph of the guidance and steering nodes in the front end of a running ComfyUI, queue it, and record what the nodes show.
//
//   node live_bar.mjs PLAYWRIGHT_FOLDER CHROMIUM URL classic|vue dark|light PICTURE_PREFIX
//
// Prints one JSON object: the states of each node's bar, what the front end saves and queues before and after, and errors. With an empty
// PICTURE_PREFIX no pictures are taken.
import { pause } from './chromium.mjs'
import { open, settled } from './front_end.mjs'

const [playwright, chromium, url, renderer, theme, prefix] = process.argv.slice(2)
const settings = { 'Comfy.ColorPalette': theme, 'Comfy.VueNodes.Enabled': renderer === 'vue' }
const { page, takeErrors, close } = await open(url, playwright, chromium, { size: [1600, 1000], settings })
try {
  await settled(page, url)
  const ids = await page.evaluate(build, Date.now() % 1_000_000) // a new seed, so that nothing comes from the cache
  await pause(page, 1000)
  await page.evaluate(warmUp)
  const before = await page.evaluate(saved, ids)
  await page.evaluate(watch)
  await page.evaluate(() => window.app.queuePrompt(0))
  await page.waitForFunction(() => window.equipoiseStates.messages || window.equipoiseStates.ended)
  const picture = async (name) => prefix && page.screenshot({ path: `${prefix}_${name}.png` })
  await picture('during')
  await page.waitForFunction(() => window.equipoiseStates.ended)
  await pause(page, 1000)
  const after = await page.evaluate(saved, ids)
  const shown = await page.evaluate(look)
  await picture('after')
  if (prefix) {
    await page.evaluate(() => { document.body.style.zoom = '200%' })
    await pause(page, 1000)
    await picture('zoomed')
  }
  const states = await page.evaluate(() => ({ ...window.equipoiseStates, seen: Object.fromEntries(window.equipoiseStates.seen) }))
  const stopped = await page.evaluate(interrupt)
  console.log(JSON.stringify({ ...takeErrors(), states, before, after, shown, stopped }))
} finally {
  await close()
}

// The functions below run in the page.

// Two samplings in sequence: a KSampler with Distribution Guidance and Bias Feature Steer on one MODEL, then the KSampler that has guidance in
// it. Pictures come after both, because a front end on a busy machine draws nothing else while it loads them.
function build(seed) {
  const { app, LiteGraph } = window
  const { graph } = app
  graph.clear()
  const add = (type, x, y, values = {}) => {
    const node = LiteGraph.createNode(type)
    node.pos = [x, y]
    graph.add(node)
    for (const [name, value] of Object.entries(values)) node.widgets.find((w) => w.name === name).value = value
    return node
  }
  const input = (node, name) => node.inputs.findIndex((i) => i.name === name)
  const link = (from, output, to, name) => from.connect(output, to, input(to, name))
  const sampling = { seed, steps: 20, cfg: 1, sampler_name: 'ddim', scheduler: 'normal', control_after_generate: 'fixed' }
  const load = add('EquipoiseLoadUnconditionalDiffusion', 0, 60)
  const latent = add('EquipoiseEmptyPixelLatent', 0, 260, { batch_size: 48 })
  const adp = add('EquipoiseLoadADP', 0, 460)
  const target = add('EquipoiseTargetDistribution', 0, 640, { attribute: 'eyeglasses', weights: 'yes=0.5, no=0.5' })
  const sae = add('EquipoiseLoadSAE', 330, 60)
  const features = add('EquipoiseLoadBiasFeatures', 330, 220)
  const judge = add('EquipoiseLoadAttributeClassifier', 330, 400)
  const guide = add('EquipoiseDistributionGuidance', 680, 60)
  const steer = add('EquipoiseBiasFeatureSteer', 1030, 60, { strength: 0.5 })
  const plain = add('KSampler', 1380, 60, sampling)
  const guided = add('EquipoiseDistributionGuidanceKSampler', 1700, 60, sampling)
  const decode = add('VAEDecode', 2080, 60)
  const histogram = add('EquipoiseAttributeHistogram', 2080, 160)
  for (const to of [guide, guided]) {
    link(adp, 0, to, 'adp')
    link(target, 0, to, 'target')
  }
  for (const to of [latent, guide, guided]) link(load, 0, to, 'model')
  for (const [to, model] of [[plain, steer], [guided, null]]) {
    if (model) link(model, 0, to, 'model')
    for (const name of ['positive', 'negative']) link(load, 2, to, name)
    link(to === plain ? latent : plain, 0, to, 'latent_image')
  }
  link(guide, 0, steer, 'model')
  link(sae, 0, steer, 'sae')
  link(features, 0, steer, 'bias_features')
  link(target, 0, steer, 'target')
  link(adp, 0, steer, 'adp')
  link(guided, 0, decode, 'samples')
  link(load, 1, decode, 'vae')
  link(decode, 0, histogram, 'images')
  link(judge, 0, histogram, 'classifier')
  link(target, 0, histogram, 'target')
  if (input(histogram, 'assigned') >= 0) link(guided, 2, histogram, 'assigned')
  app.canvas.ds.scale = 0.65
  app.canvas.ds.offset = [-600, 60]
  app.canvas.setDirty(true, true)
  return { guide: guide.id, steer: steer.id, guided: guided.id, histogram: histogram.id, target: target.id }
}

// Run two steps first. The front end then loads what it needs to show a queue, and on a busy machine draws nothing for seconds.
async function warmUp() {
  const { app } = window
  const steps = app.graph._nodes.flatMap((node) => node.widgets ?? []).filter((widget) => widget.name === 'steps')
  const wished = steps.map((widget) => widget.value)
  for (const widget of steps) widget.value = 2
  const ended = new Promise((resolve) => app.api.addEventListener('execution_success', resolve, { once: true }))
  await app.queuePrompt(0)
  await ended
  steps.forEach((widget, i) => (widget.value = wished[i]))
  await new Promise((resolve) => setTimeout(resolve, 2000))
}

// Return what the front end saves of our nodes, and what it queues.
async function saved(ids) {
  const { app } = window
  const graph = app.graph.serialize()
  const prompt = await app.graphToPrompt()
  const nodes = graph.nodes.filter((n) => Object.values(ids).map(String).includes(String(n.id))).map((n) => ({ ...n, order: 0, size: [n.size[0], n.size[1]].map(Math.round) }))
  return { nodes, output: prompt.output }
}

// Queue the graph again, interrupt a run, and return the texts of the bars.
async function interrupt() {
  const { app } = window
  const until = async (seen) => {
    while (!seen()) await new Promise((resolve) => setTimeout(resolve, 50))
  }
  for (const node of app.graph._nodes) // so many that the run can be interrupted
    for (const widget of node.widgets ?? []) if (widget.name === 'steps') widget.value = 400
  const bars = () => [...document.querySelectorAll('.equipoise-step')].map((e) => e.textContent)
  let ended = false
  for (const kind of ['execution_interrupted', 'execution_success', 'execution_error']) app.api.addEventListener(kind, () => (ended = kind))
  await app.queuePrompt(0)
  await until(() => ended || bars().some((text) => text.startsWith('step ')))
  await app.api.interrupt()
  await until(() => ended)
  await new Promise((resolve) => setTimeout(resolve, 500))
  return { ended, bars: bars() }
}

function watch() {
  const states = (window.equipoiseStates = { seen: new Map(), bars: 0, ended: false, messages: 0, shortestGap: Infinity })
  let number = 0
  const times = {}
  window.app.api.addEventListener('equipoise.reading', ({ detail }) => {
    states.messages++
    const now = performance.now()
    if (detail.node in times) states.shortestGap = Math.min(states.shortestGap, now - times[detail.node])
    times[detail.node] = now
  })
  for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
    window.app.api.addEventListener(kind, ({ detail }) => { states.ended = kind; states.message = detail?.exception_message })
  const summary = (bar) => [...bar.querySelectorAll('.equipoise-shares')].map((s) => s.getAttribute('aria-label')).join('; ')
  const bars = () => [...document.querySelectorAll('.equipoise-bar')]
  const before = new Map(bars().map((bar) => [bar, summary(bar)])) // of the run before
  const note = () => {
    states.bars = bars().length
    for (const bar of bars()) {
      const i = (bar.equipoiseNumber ??= ++number), now = summary(bar)
      const list = states.seen.get(i) ?? states.seen.set(i, []).get(i)
      if (now && now !== (list.at(-1) ?? before.get(bar))) list.push(now)
    }
  }
  new MutationObserver(note).observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ['aria-label'] })
}

async function look() {
  const bars = [...document.querySelectorAll('.equipoise-bar')]
  const lists = [...document.querySelectorAll('.equipoise-list')]
  const focused = (element) => (element.focus({ preventScroll: true }), document.activeElement === element)
  return {
    bars: bars.map((bar) => {
      const box = bar.getBoundingClientRect(), frame = bar.parentElement.parentElement.getBoundingClientRect()
      return {
        step: bar.querySelector('.equipoise-step').textContent,
        spoken: bar.querySelector('[role=status]').textContent,
        lines: bar.querySelectorAll('.equipoise-track i').length,
        focus: focused(bar),
        visible: box.width > 50 && box.height > 30,
        cut: [box.height - frame.height, box.width - frame.width].map(Math.round)
      }
    }),
    thumbs: await Promise.all(lists.map(async (list) => {
      const sheet = new Image()
      sheet.src = list.querySelector('.equipoise-picture').style.backgroundImage.slice(5, -2)
      const loaded = await sheet.decode().then(() => sheet.naturalWidth > 0, () => false)
      const images = [...list.children].map((item) => ({
        lines: [...item.querySelectorAll('.equipoise-line')].map((l) => l.textContent),
        missed: item.classList.contains('equipoise-missed')
      }))
      return { images, loaded, focus: focused(list) }
    }))
  }
}

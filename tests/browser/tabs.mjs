// Run a graph twice with two targets, leave its tab and come back, and run it while another workflow with the same nodes is open.
//
//   node tabs.mjs PLAYWRIGHT_FOLDER CHROMIUM URL
//
// Prints one JSON object: what the nodes show at each of these moments, and errors.
import { randomUUID } from 'node:crypto'
import { pause } from './chromium.mjs'
import { open, settled } from './front_end.mjs'

const [playwright, chromium, url] = process.argv.slice(2)
const TEMPLATE = '1 Start here, no download'
const { page, takeErrors, close } = await open(url, playwright, chromium, { size: [1600, 1000] })
const seen = {}
const run = async (weights) => {
  await page.evaluate(setWeights, weights)
  return page.evaluate(queue)
}
try {
  await settled(page, url)
  const workflow = await (await fetch(`${url}/api/workflow_templates/equipoise/${encodeURIComponent(TEMPLATE)}.json`)).json()
  await page.evaluate(load, [workflow, 'first'])
  for (const [name, weights] of [['half', 'yes=0.5, no=0.5'], ['fifth', 'yes=0.2, no=0.8']]) {
    await run(weights)
    await pause(page, 1000)
    seen[name] = await page.evaluate(look)
  }
  await page.evaluate(load, [{ ...workflow, id: randomUUID() }, 'second'])
  await pause(page, 1000)
  seen.elsewhere = await page.evaluate(look)
  await page.evaluate(back, 'first')
  await pause(page, 1500)
  seen.back = await page.evaluate(look)
  const ended = run('yes=0.5, no=0.5')
  await pause(page, 300)
  await page.evaluate(back, 'second')
  await ended
  await pause(page, 1000)
  seen.other = await page.evaluate(look)
  await page.evaluate(load, [workflow, 'twin'])
  await pause(page, 1000)
  seen.twin = await page.evaluate(look)
  await page.evaluate(back, 'first')
  await pause(page, 1000)
  seen.first = await page.evaluate(look)
  await page.evaluate(copy, [randomUUID(), 'copy'])
  await pause(page, 1000)
  seen.copied = await page.evaluate(look)
  await page.evaluate(queue)
  await pause(page, 1000)
  seen.cached = await page.evaluate(look)
  await page.evaluate(halves)
  await pause(page, 500)
  seen.halves = await page.evaluate(look)
  console.log(JSON.stringify({ ...takeErrors(), seen }))
} finally {
  await close()
}

// The functions below run in the page.

async function load([workflow, name]) {
  await window.app.loadGraphData(workflow, true, true, name)
  await new Promise((resolve) => setTimeout(resolve, 1500))
}

// Open the workflow of a tab again, as a click on the tab does.
async function back(name) {
  const store = window.app.extensionManager.workflow
  const wanted = store.openWorkflows.find((workflow) => workflow.filename.startsWith(name))
  const state = wanted.activeState ?? wanted.initialState
  await window.app.loadGraphData(JSON.parse(JSON.stringify(state)), true, true, wanted)
  await new Promise((resolve) => setTimeout(resolve, 500))
}

// Open the workflow of the active tab in another tab, with an id of its own.
async function copy([id, name]) {
  await window.app.loadGraphData({ ...JSON.parse(JSON.stringify(window.app.graph.serialize())), id }, true, true, name)
  await new Promise((resolve) => setTimeout(resolve, 1500))
}

function setWeights(weights) {
  const { app } = window
  app.graph._nodes.find((node) => node.type === 'EquipoiseTargetDistribution').widgets.find((w) => w.name === 'weights').value = weights
  app.graph._nodes.find((node) => node.type === 'EquipoiseEmptyPixelLatent').widgets.find((w) => w.name === 'batch_size').value = 32
  const seed = app.graph._nodes.find((node) => node.type === 'PrimitiveInt').widgets[0]
  seed.value = (seed.value + 1 + (Date.now() % 10_000)) % 1_000_000 // nothing comes from the cache
}

// Queue the open workflow as it is, and wait for the end.
async function queue() {
  const { app } = window
  const ended = new Promise((resolve) => {
    for (const kind of ['execution_success', 'execution_error', 'execution_interrupted']) app.api.addEventListener(kind, () => resolve(kind), { once: true })
  })
  await app.queuePrompt(0)
  return ended
}

// Send a reading whose shares both end in half a per cent, as the server would.
function halves() {
  const { app } = window
  const node = String(app.graph._nodes.find((one) => one.type.startsWith('EquipoiseDistributionGuidance')).id)
  const attributes = [{ name: 'eyeglasses', classes: ['yes', 'no'], target: [0.125, 0.875], read: [0.435, 0.565], assigned: null }]
  app.api.dispatchCustomEvent('equipoise.reading', { node, step: 1, steps: 2, images: 8, exempt: false, attributes })
}

function look() {
  const visible = (element) => element.getBoundingClientRect().width > 0
  const lists = [...document.querySelectorAll('.equipoise-list')].filter(visible)
  return {
    lines: [...document.querySelectorAll('.equipoise-bar .equipoise-track i')].filter(visible).map((line) => line.style.left),
    texts: [...document.querySelectorAll('.equipoise-class span')].filter(visible).map((span) => span.textContent),
    pictures: lists.map((list) => list.children.length),
    cut: lists.map((list) => {
      const rows = [...list.children].map((entry) => entry.offsetTop + entry.offsetHeight - list.offsetTop)
      return Math.min(...rows.filter((end) => end > list.clientHeight + 1).map((end) => end - list.clientHeight), Infinity) < list.children[0].offsetHeight * 0.9
    })
  }
}

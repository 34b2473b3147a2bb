// Shared by the browser tests: open the real front end of a running ComfyUI in Chromium, use it with the mouse, and collect console errors.
import { launch, pause } from './chromium.mjs'

// Errors of the front end itself: about an empty user folder, and about models that it would look up at Hugging Face.
const HOSTS = [
  /\/user\.css/,
  /\/api\/userdata/,
  /\/api\/settings\//,
  /\/api\/assets/,
  /huggingface\.co/,
  /fetching file size|fetchFileSize|fetching metadata/,
  /ComfyApp graph accessed before initialization/,
  /ResizeObserver loop/,
  /reading 'id'\)\s+at onChange \(\S*\/assets\/index-/ // 1.27 applies a stored setting before there is a graph
]
// Settings of a user who has used ComfyUI before and shows only the graph. A server keeps the last settings, so this has every setting that a
// script changes.
export const QUIET = {
  'Comfy.TutorialCompleted': true,
  'Comfy.Minimap.Visible': false,
  'Comfy.Graph.CanvasInfo': false,
  'Comfy.Graph.CanvasMenu': true,
  'Comfy.Canvas.SelectionToolbox': true,
  'Comfy.VueNodes.Enabled': false,
  'Comfy.ColorPalette': 'dark',
  'Comfy.Locale': 'en'
}

// Store a user's settings on the server.
export async function store(url, settings) {
  await fetch(`${url}/settings`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(settings) })
}

// Start Chromium for a server: { page, takeErrors, close, fetched }. Before that, store `settings` there, added to QUIET; null is a new user.
// `takeErrors()` returns the console's errors since the last call: those that are not the host's own, and the number of the host's.
export async function open(url, playwright, chromium, { size = [1600, 900], scale, settings = {} } = {}) {
  if (settings) await store(url, { ...QUIET, ...settings })
  const { page, errors: all, close } = await launch(playwright, chromium, { size, scale })
  // The host has hundreds of templates, whose pictures take seconds to draw. One is enough.
  if (settings)
    await page.route(/\/templates\/index\.json/, async (route) => {
      const [category] = await (await route.fetch()).json()
      await route.fulfill({ json: [{ ...category, templates: category.templates.slice(0, 1) }] })
    })
  const fetched = []
  page.on('response', (answer) => answer.ok() && fetched.push(new URL(answer.url()).pathname))
  const takeErrors = () => {
    const [errors, hosts] = [[], []]
    for (const text of all.splice(0)) (HOSTS.some((known) => known.test(text)) && !text.includes('/extensions/equipoise') ? hosts : errors).push(text)
    return { errors, hosts: hosts.length }
  }
  return { page, takeErrors, close, fetched }
}

// Runs in the page: tell whether there is a graph to work on. The oldest supported front end has no flag for it.
function isReady() {
  const { app, LiteGraph } = window
  const ready = app?.isGraphReady ?? (app?.vueAppReady && app.graph)
  return Boolean(ready && app.extensionManager && LiteGraph?.registered_node_types.EquipoiseLoadADP)
}

// Open the page and wait until it has a graph.
export async function visit(page, url) {
  await page.goto(url)
  await page.waitForFunction(isReady)
}

// Open the page, wait for the dialogs that open by themselves, and close them.
export async function settled(page, url) {
  await visit(page, url)
  await pause(page, 3000)
  await page.keyboard.press('Escape')
}

// List the pack's scripts that the server offers, and those of them that the page did not fetch.
export async function scripts(fetched, url) {
  const offered = (await (await fetch(`${url}/extensions`)).json()).filter((path) => path.startsWith('/extensions/equipoise/'))
  return { offered, missing: offered.filter((path) => !fetched.some((one) => one.endsWith(path))) }
}

// Open a template as a user does: Templates, the pack's name, the card.
export async function openTemplate(page, name, pack = 'equipoise') {
  const dialog = page.locator('[aria-labelledby="global-workflow-template-selector"]')
  if (!(await dialog.isVisible())) await page.locator('.templates-tab-button').click()
  await dialog.getByText(pack, { exact: true }).click()
  const card = page.getByTestId(`template-workflow-${name}`)
  for (let left = 10; left && (await dialog.isVisible()); left--) {
    // the list is drawn again while its pictures arrive, and loses a click in that moment
    await card.click({ timeout: 20_000 }).catch(() => {})
    await dialog.waitFor({ state: 'hidden', timeout: 10_000 }).catch(() => {})
  }
  await page.waitForFunction((wanted) => document.title.includes(wanted), name)
}

// Press Run and wait for the end: { seconds, error }, with an empty error if there was none.
export async function run(page) {
  const started = Date.now()
  await page.evaluate(() => {
    window.ended = window.app.lastNodeErrors = null
    const { api } = window.app
    for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
      api.addEventListener(kind, (event) => (window.ended ??= { kind, detail: event.detail?.exception_message ?? '' }))
  })
  await page.getByTestId('queue-button').click()
  const refused = () => Object.keys(window.app.lastNodeErrors ?? {}).length && (window.ended ??= { kind: 'refused', detail: JSON.stringify(window.app.lastNodeErrors) })
  await page.waitForFunction(`window.ended || (${refused})()`, null, { polling: 200 })
  const { kind, detail } = await page.evaluate(() => window.ended)
  const seconds = (Date.now() - started) / 1000
  return { seconds, error: kind === 'execution_success' ? '' : `${kind} ${detail}` }
}

// Wait until every node shows the pictures that the server sent: node id -> number of pictures.
export async function pictures(page) {
  await page.waitForFunction(
    () => {
      const { graph, nodeOutputs } = window.app
      return graph._nodes.every((node) => {
        const images = nodeOutputs[node.id]?.images ?? []
        const drawn = node.imgs?.length ? node.imgs : [...document.querySelectorAll(`[data-node-id="${node.id}"] img`)]
        return !images.length || drawn.some((image) => image.complete && image.naturalWidth > 0)
      })
    },
    null,
    { polling: 200 }
  )
  return page.evaluate(() => Object.fromEntries(Object.entries(window.app.nodeOutputs).flatMap(([id, o]) => (o.images?.length ? [[id, o.images.length]] : []))))
}

// Runs in the page: bring the complete graph into view, and list nodes that are unknown, that overlap as drawn, or that leave their frame.
export function fitAndCheck() {
  const { graph, canvas } = window.app
  const title = 30
  const boxes = graph._nodes.map((n) => [n.pos[0], n.pos[1] - title, n.pos[0] + n.size[0], n.pos[1] + n.size[1]])
  const frames = graph._groups.map((g) => [g.pos[0], g.pos[1], g.pos[0] + g.size[0], g.pos[1] + g.size[1]])
  const meet = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
  const within = (a, b) => b[0] <= a[0] && b[1] <= a[1] && a[2] <= b[2] && a[3] <= b[3]
  const name = (i) => `${graph._nodes[i].id} ${graph._nodes[i].title}`
  const overlapping = [], outside = []
  for (let i = 0; i < boxes.length; i++) {
    for (let j = i + 1; j < boxes.length; j++) if (meet(boxes[i], boxes[j])) overlapping.push([name(i), name(j)])
    if (frames.some((frame) => meet(boxes[i], frame) && !within(boxes[i], frame))) outside.push(name(i))
  }
  for (let i = 0; i < frames.length; i++)
    for (let j = i + 1; j < frames.length; j++) if (meet(frames[i], frames[j])) overlapping.push([graph._groups[i].title, graph._groups[j].title])
  const all = [...boxes, ...frames]
  const left = Math.min(...all.map((b) => b[0])), top = Math.min(...all.map((b) => b[1]))
  const right = Math.max(...all.map((b) => b[2])), bottom = Math.max(...all.map((b) => b[3]))
  const view = canvas.canvas.getBoundingClientRect(), margin = 16
  const scale = Math.min((view.width - 2 * margin) / (right - left), (view.height - 2 * margin) / (bottom - top))
  canvas.ds.scale = scale
  canvas.ds.offset = [(view.width / scale - (right - left)) / 2 - left, (view.height / scale - (bottom - top)) / 2 - top]
  canvas.setDirty(true, true)
  const unknown = graph._nodes.filter((n) => !window.LiteGraph.registered_node_types[n.type]).map((n) => n.type)
  return { nodes: graph._nodes.length, groups: graph._groups.length, unknown, overlapping, outside }
}

// What the browser tests share: the real front end of a running ComfyUI in Chromium, driven with the mouse, and what it said on its console.
import { launch, pause } from './chromium.mjs'

// What the front end itself has to say about an empty user folder, and about models that it would look up at Hugging Face.
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
// A user who has been here before, and looks at nothing but the graph. A server keeps what was set last, so all that a script sets is here.
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

// Stores a user's settings on the server.
export async function store(url, settings) {
  await fetch(`${url}/settings`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(settings) })
}

// Starts Chromium for a server; `settings` are stored there first, over QUIET (null: a new user). Gives {page, heard, close, fetched}:
// `heard()` is what the console has said since it was last asked: errors that are not the host's own, and how many are the host's.
export async function open(url, playwright, chromium, { size = [1600, 900], scale, settings = {} } = {}) {
  if (settings) await store(url, { ...QUIET, ...settings })
  const { page, said, close } = await launch(playwright, chromium, { size, scale })
  // Of the host's own templates, hundreds with pictures that take seconds to draw, one is enough.
  if (settings)
    await page.route(/\/templates\/index\.json/, async (route) => {
      const [category] = await (await route.fetch()).json()
      await route.fulfill({ json: [{ ...category, templates: category.templates.slice(0, 1) }] })
    })
  const fetched = []
  page.on('response', (answer) => answer.ok() && fetched.push(new URL(answer.url()).pathname))
  const heard = () => {
    const [errors, hosts] = [[], []]
    for (const text of said.splice(0)) (HOSTS.some((known) => known.test(text)) && !text.includes('/extensions/equipoise') ? hosts : errors).push(text)
    return { errors, hosts: hosts.length }
  }
  return { page, heard, close, fetched }
}

// Runs in the page: whether there is a graph to work on. The oldest supported front end does not say so itself.
function isReady() {
  const { app, LiteGraph } = window
  const ready = app?.isGraphReady ?? (app?.vueAppReady && app.graph)
  return Boolean(ready && app.extensionManager && LiteGraph?.registered_node_types.EquipoiseLoadADP)
}

// Until the front end has one.
export async function visit(page, url) {
  await page.goto(url)
  await page.waitForFunction(isReady)
}

// The same, until what opens by itself has opened; that is closed again.
export async function settled(page, url) {
  await visit(page, url)
  await pause(page, 3000)
  await page.keyboard.press('Escape')
}

// Which of the pack's scripts the server offers, and which of them are not among what the page has fetched.
export async function scripts(fetched, url) {
  const offered = (await (await fetch(`${url}/extensions`)).json()).filter((path) => path.startsWith('/extensions/equipoise/'))
  return { offered, missing: offered.filter((path) => !fetched.some((one) => one.endsWith(path))) }
}

// Opens a template the way a user does: Templates, the pack's name, the card.
export async function openTemplate(page, name, pack = 'equipoise') {
  const dialog = page.locator('[aria-labelledby="global-workflow-template-selector"]')
  if (!(await dialog.isVisible())) await page.locator('.templates-tab-button').click()
  await dialog.getByText(pack, { exact: true }).click()
  const card = page.getByTestId(`template-workflow-${name}`)
  for (let left = 10; left && (await dialog.isVisible()); left--) {
    // the list is drawn anew while its pictures arrive, and a click in that moment is lost
    await card.click({ timeout: 20_000 }).catch(() => {})
    await dialog.waitFor({ state: 'hidden', timeout: 10_000 }).catch(() => {})
  }
  await page.waitForFunction((wanted) => document.title.includes(wanted), name)
}

// Presses Run and waits for the end: seconds, the error if there was one, and pictures that each node shows.
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

// Waits until every node that the server gave pictures shows them: node id -> how many.
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

// Runs in the page: bring the whole graph into view; which nodes are unknown, which overlap at the sizes they are drawn at, which leave
// the frame that they stand in, and which widgets lie on each other.
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

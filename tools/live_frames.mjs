// Take pictures of a node's live bar while the template "1 Start here, no download" runs.
//
//   node tools/live_frames.mjs PLAYWRIGHT_FOLDER CHROMIUM URL FOLDER
//
// URL: a running ComfyUI with the pack. The pictures go to FOLDER as 000.png, 001.png and so on, for tools/moving_pictures.py.
import { pause } from '../tests/browser/chromium.mjs'
import { open, settled } from '../tests/browser/front_end.mjs'

const [playwright, chromium, url, folder] = process.argv.slice(2)
const TEMPLATE = '1 Start here, no download'
const CLIP = { x: 115, y: 440, width: 410, height: 270 } // the node's last widgets and its bar
const MOST = 120

const { page, close } = await open(url, playwright, chromium, { size: [1200, 900], settings: { 'Comfy.VueNodes.Enabled': true } })
try {
  await settled(page, url)
  await page.evaluate(openTemplate, TEMPLATE)
  await pause(page, 2500)
  await page.evaluate(queue)
  for (let i = 0; i < MOST && !(await page.evaluate(() => window.equipoiseEnded)); i++) {
    await page.screenshot({ clip: CLIP, path: `${folder}/${String(i).padStart(3, '0')}.png` })
    await pause(page, 250)
  }
  await pause(page, 1500)
  await page.screenshot({ clip: CLIP, path: `${folder}/${MOST}.png` })
} finally {
  await close()
}

// The functions below run in the page.

async function openTemplate(name) {
  const { app } = window
  const answer = await fetch(`/api/workflow_templates/equipoise/${encodeURIComponent(name)}.json`)
  await app.loadGraphData(await answer.json())
  const widget = (type, name) => app.graph._nodes.find((node) => node.type === type).widgets.find((w) => w.name === name)
  widget('EquipoiseEmptyPixelLatent', 'batch_size').value = 48 // long enough to watch
  widget('PrimitiveInt', 'value').value = Date.now() % 100_000 // nothing comes from the cache
  const { pos } = app.graph._nodes.find((node) => node.type === 'EquipoiseDistributionGuidanceKSampler')
  app.canvas.ds.scale = 1
  app.canvas.ds.offset = [130 - pos[0], 120 - pos[1]]
  app.canvas.setDirty(true, true)
}

function queue() {
  const { app } = window
  app.api.addEventListener('execution_success', () => { window.equipoiseEnded = true })
  app.queuePrompt(0)
}

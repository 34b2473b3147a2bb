// Open the help of nodes in the real front end of a running ComfyUI, as a user does: select the node, press Node Info.
//
//   node help.mjs URL PLAYWRIGHT_FOLDER CHROMIUM PICTURE_PREFIX NODE_ID ...
//
// PLAYWRIGHT_FOLDER is a folder in which playwright-core was installed. Prints one JSON object per node: the title of its page, the
// headings, the pictures with their widths as loaded (0 where one did not load) and as shown, and errors with the path they are about.
// Writes PICTURE_PREFIXNODE_ID.png.
import { createRequire } from 'node:module'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const [url, playwright, chromium, prefix, ...nodes] = process.argv.slice(2)
const { chromium: browser } = createRequire(join(resolve(playwright), 'here.js'))('playwright-core')
const settings = { 'Comfy.TutorialCompleted': true, 'Comfy.Minimap.Visible': false, 'Comfy.Canvas.SelectionToolbox': true, 'Comfy.VueNodes.Enabled': false }
await fetch(`${url}/settings`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(settings) })

const profile = mkdtempSync(join(tmpdir(), 'equipoise-browser-'))
const context = await browser.launchPersistentContext(profile, {
  executablePath: chromium,
  headless: true,
  viewport: { width: 1400, height: 900 },
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']
})
try {
  const page = context.pages()[0] ?? (await context.newPage())
  let errors = []
  page.on('console', (message) => message.type() === 'error' && errors.push(`${message.text()} ${new URL(message.location().url || url).pathname}`))
  page.on('pageerror', (error) => errors.push(String(error)))
  page.setDefaultTimeout(60_000)
  await page.goto(url)
  await page.waitForFunction(() => window.app?.isGraphReady ?? (window.app?.graph && window.app.extensionManager), null, { timeout: 180_000 })
  await page.waitForTimeout(4000)
  await page.keyboard.press('Escape')
  for (const id of nodes) {
    errors = []
    await page.evaluate((type) => {
      const { graph, canvas } = window.app
      graph.clear()
      const node = window.LiteGraph.createNode(type)
      node.pos = [100, 100]
      graph.add(node)
      canvas.ds.scale = 0.5
      canvas.ds.offset = [1200, 300] // between the panels on the left and on the right
      canvas.selectNode(node)
      canvas.setDirty(true, true)
    }, id)
    await page.getByTestId('info-button').or(page.getByTestId('help-button')).first().click() // older front ends call it help
    const help = page.locator('.node-help-content').first()
    await help.locator('h2').first().waitFor()
    await page.waitForFunction((id) => {
      const pictures = [...document.querySelectorAll('.node-help-content img')]
      return pictures.some((i) => i.src.includes(id)) && pictures.every((i) => i.complete)
    }, id)
    const seen = await help.evaluate((e) => ({
      title: e.querySelector('h1')?.textContent,
      headings: [...e.querySelectorAll('h2')].map((h) => h.textContent),
      pictures: [...e.querySelectorAll('img')].map((i) => ({ src: new URL(i.src).pathname, alt: i.alt, width: i.naturalWidth, shown: i.clientWidth }))
    }))
    await page.screenshot({ path: `${prefix}${id}.png` })
    console.log(JSON.stringify({ id, ...seen, errors }))
  }
} finally {
  await context.close()
  rmSync(profile, { recursive: true, force: true })
}

// Open the help of nodes in the front end of a running ComfyUI, as a user does: select the node, press Node Info.
//
//   node help.mjs PLAYWRIGHT_FOLDER CHROMIUM URL PICTURE_PREFIX NODE_ID ...
//
// PLAYWRIGHT_FOLDER is a folder in which playwright-core was installed. Prints one JSON object per node: the title of its page, the
// headings, the pictures with their widths as loaded (0 where one did not load) and as shown, and errors with the address they are about.
// Writes PICTURE_PREFIXNODE_ID.png.
import { open, settled } from './front_end.mjs'

const [playwright, chromium, url, prefix, ...nodes] = process.argv.slice(2)
const { page, takeErrors, close } = await open(url, playwright, chromium, { size: [1400, 900] })
try {
  await settled(page, url)
  for (const id of nodes) {
    takeErrors()
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
    await help.locator(`img[src*="${id}"]`).click()
    const full = await page.locator('.equipoise-full img').evaluate((i) => i.clientWidth)
    await page.locator('.equipoise-full').click()
    const closed = (await page.locator('.equipoise-full').count()) === 0
    console.log(JSON.stringify({ id, ...seen, full, closed, ...takeErrors() }))
  }
} finally {
  await close()
}

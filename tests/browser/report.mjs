// Open a fairness report in Chromium at the widths of a phone and of a desktop, and take screenshots.
//
//   node report.mjs PLAYWRIGHT_FOLDER CHROMIUM REPORT.html PICTURE_PREFIX [WIDTH ...]
//
// The default widths are 390 and 1280. Prints one JSON object per width: requests to any host, errors of the console, by how much the page is
// wider than the window, text that is cut off, and pictures that did not load. Exits with 1 if there is any of these.
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { launch, pause } from './chromium.mjs'

const [playwright, chromium, file, prefix, ...rest] = process.argv.slice(2)
const widths = rest.length ? rest.map(Number) : [390, 1280]
const address = pathToFileURL(resolve(file)).href
let failed = false
for (const width of widths) {
  const phone = width < 640
  const { page, errors, close } = await launch(playwright, chromium, { size: [width, phone ? 844 : 900], scale: phone ? 2 : 1 })
  try {
    const asked = []
    page.on('request', (request) => request.url() !== address && !request.url().startsWith('data:') && asked.push(request.url()))
    await page.goto(address)
    await pause(page, 500)
    const layout = await page.evaluate(look)
    await page.screenshot({ path: `${prefix}_${width}.png`, fullPage: true })
    const report = { width, asked, errors, ...layout }
    failed ||= asked.length > 0 || errors.length > 0 || layout.tooWide > 0 || layout.cut.length > 0 || layout.broken > 0
    console.log(JSON.stringify(report))
  } finally {
    await close()
  }
}
process.exit(failed ? 1 : 0)

// Runs in the page.
function look() {
  const all = [...document.querySelectorAll('main *')]
  const cut = all.filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 && getComputedStyle(e).display !== 'inline')
  const images = [...document.images]
  return {
    height: document.documentElement.scrollHeight,
    images: images.length,
    broken: images.filter((i) => !i.complete || !i.naturalWidth).length,
    tooWide: Math.max(0, document.documentElement.scrollWidth - window.innerWidth),
    cut: cut.map((e) => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 40)}`).slice(0, 10)
  }
}

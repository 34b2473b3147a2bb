// Open a fairness report in Chromium as a phone and as a desktop see it, and photograph it.
//
//   node report.mjs PLAYWRIGHT_FOLDER CHROMIUM REPORT.html PICTURE_PREFIX [WIDTH ...]
//
// Widths are 390 and 1280 where none are given. Prints one JSON object per width: what was asked of any host, errors of the console, whether
// the page is wider than the window, text that is cut off, and pictures that did not load; exits with 1 where there is any of it.
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { launch, pause } from './chromium.mjs'

const [playwright, chromium, file, prefix, ...rest] = process.argv.slice(2)
const widths = rest.length ? rest.map(Number) : [390, 1280]
const address = pathToFileURL(resolve(file)).href
let failed = false
for (const width of widths) {
  const phone = width < 640
  const { page, said: errors, close } = await launch(playwright, chromium, { size: [width, phone ? 844 : 900], scale: phone ? 2 : 1 })
  try {
    const asked = []
    page.on('request', (request) => request.url() !== address && !request.url().startsWith('data:') && asked.push(request.url()))
    await page.goto(address)
    await pause(page, 500)
    const found = await page.evaluate(look)
    await page.screenshot({ path: `${prefix}_${width}.png`, fullPage: true })
    const report = { width, asked, errors, ...found }
    failed ||= asked.length > 0 || errors.length > 0 || found.tooWide > 0 || found.cut.length > 0 || found.broken > 0
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

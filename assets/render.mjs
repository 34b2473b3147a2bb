// Draw the registry's pictures: node assets/render.mjs PLAYWRIGHT_FOLDER CHROMIUM
//
// PLAYWRIGHT_FOLDER is a folder in which playwright-core was installed. Writes icon.png (400 x 400, transparent corners) and banner.png
// (1344 x 576, 21:9) beside the SVG files that they are made from: a PNG looks the same wherever it is shown, whatever fonts are there.
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const [playwright, executablePath] = process.argv.slice(2)
const { chromium } = createRequire(join(resolve(playwright), 'here.js'))('playwright-core')
const here = dirname(fileURLToPath(import.meta.url))
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] })
try {
  for (const [name, width, height] of [['icon', 400, 400], ['banner', 1344, 576]]) {
    const page = await browser.newPage({ viewport: { width, height } })
    await page.setContent(`<style>body{margin:0}svg{display:block}</style>${readFileSync(join(here, `${name}.svg`), 'utf8')}`)
    await page.screenshot({ path: join(here, `${name}.png`), omitBackground: true })
    await page.close()
  }
} finally {
  await browser.close()
}

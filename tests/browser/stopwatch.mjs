// Measure clicks and seconds of a new user, from an empty ComfyUI to the first images before and after.
//
//   node stopwatch.mjs PLAYWRIGHT_FOLDER CHROMIUM URL PICTURE [TEMPLATE]
//
// Nobody may have used the server before, because it shows the template browser to a new user. The clock starts when the address is entered and
// stops when both previews of the quickstart show their pictures. This includes loading the page, but not starting the server.
// Prints one JSON object.
import { pause } from './chromium.mjs'
import { open, pictures, visit } from './front_end.mjs'

const [playwright, chromium, url, picture, template = '1 Start here, no download'] = process.argv.slice(2)
const { page, takeErrors, close } = await open(url, playwright, chromium, { settings: null })
try {
  let clicks = 0
  const started = Date.now(), at = {}
  const since = () => Math.round((Date.now() - started) / 100) / 10
  const click = async (what) => {
    await what.click()
    clicks += 1
  }
  await visit(page, url)
  at.ready = since()
  const dialog = page.locator('[aria-labelledby="global-workflow-template-selector"]')
  await dialog.waitFor({ timeout: 60_000 }).catch(() => click(page.locator('.templates-tab-button')))
  await click(dialog.getByText('equipoise', { exact: true }))
  await click(page.getByTestId(`template-workflow-${template}`))
  await page.waitForFunction((wanted) => document.title.includes(wanted), template)
  at.open = since()
  await page.evaluate(() => window.app.api.addEventListener('execution_success', () => (window.ended = true)))
  await click(page.getByTestId('queue-button'))
  await page.waitForFunction(() => window.ended, null, { polling: 100 })
  const shown = await pictures(page)
  at.shown = since()
  await pause(page, 1000)
  await page.screenshot({ path: picture })
  console.log(JSON.stringify({ clicks, seconds: at, pictures: shown, ...takeErrors() }))
} finally {
  await close()
}

// Start Chromium for the scripts of this folder, with a profile of its own.
import { createRequire } from 'node:module'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

// Without these, Chromium contacts its maker's hosts at every start.
const QUIETLY = ['--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']

// Milliseconds after which something hangs: a busy machine draws slowly.
const PATIENCE = 3_600_000

// Wait by the page's own clock, and until it has drawn, however busy the machine is.
export const pause = (page, milliseconds) =>
  page.evaluate((wait) => new Promise((done) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), wait)), milliseconds)

// Start CHROMIUM with the playwright-core in a folder: { page, errors, close }. `size` is that of the window, `scale` the number of screen
// pixels per pixel of the window. `errors` collects the errors of the console, each with its address.
export async function launch(playwright, chromium, { size, scale = 1 }) {
  const { chromium: browser } = createRequire(join(resolve(playwright), 'here.js'))('playwright-core')
  const profile = mkdtempSync(join(tmpdir(), 'equipoise-browser-'))
  const context = await browser.launchPersistentContext(profile, {
    executablePath: chromium,
    headless: true,
    viewport: { width: size[0], height: size[1] },
    deviceScaleFactor: scale,
    reducedMotion: 'reduce',
    args: ['--headless', '--no-sandbox', '--disable-gpu', ...QUIETLY]
  })
  const page = context.pages()[0] ?? (await context.newPage())
  page.setDefaultTimeout(PATIENCE)
  const errors = []
  page.on('console', (message) => message.type() === 'error' && errors.push(`${message.text()} (${message.location().url})`))
  page.on('pageerror', (error) => errors.push(String(error.stack ?? error)))
  const close = async () => {
    await context.close()
    rmSync(profile, { recursive: true, force: true })
  }
  return { page, errors, close }
}

// Texts that the front-end extension shows: English in the code, translated by locales/<language>/main.json, key "equipoise".
//
//   import { text } from './texts.js'
//   text('bar.seen', '{n} of {all} images', { n: 3, all: 8 })
import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'

let languages = {}

/** Resolves when the translations are there; until then, and where there are none, texts are English. Never rejects. */
export const textsReady = load()

async function load() {
  try {
    const answer = await api.fetchApi('/i18n')
    if (answer.ok) languages = await answer.json()
  } catch {
    // English will do
  }
}

/** The language that the front end is set to, such as "en" or "zh-TW". */
export function language() {
  return String(app.extensionManager?.setting?.get('Comfy.Locale') ?? document.documentElement.lang ?? '') || 'en'
}

/**
 * A text in the user's language. `key` without the leading "equipoise."; `english` is what is shown where there is no translation;
 * `{name}` in either is replaced by `values.name`.
 */
export function text(key, english, values = {}) {
  const wanted = language()
  const found = translation(wanted, key) ?? translation(wanted.split('-')[0], key) ?? english
  return found.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole))
}

function translation(name, key) {
  const found = languages[name]?.equipoise?.[key]
  return typeof found === 'string' && found ? found : undefined
}

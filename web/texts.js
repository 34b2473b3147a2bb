// Texts of the front-end extension. English is in the code; locales/<language>/main.json translates it, under the key "equipoise".
//
//   import { text } from './texts.js'
//   text('bar.seen', '{n} of {all} images', { n: 3, all: 8 })
import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'

let languages = {} // language -> the content of its main.json

/** Load the translations. Texts are English until they are there. */
async function load() {
  try {
    const response = await api.fetchApi('/i18n')
    if (response.ok) languages = await response.json()
  } catch {
    // texts stay English
  }
}

load()

/** Get the language of the front end, such as "en" or "zh-TW". */
export function language() {
  return String(app.extensionManager?.setting?.get('Comfy.Locale') ?? document.documentElement.lang ?? '') || 'en'
}

/**
 * Translate a text into the user's language.
 *
 * `key` has no leading "equipoise.". `english` is shown if there is no translation. `{name}` in either stands for `values.name`.
 */
export function text(key, english, values = {}) {
  const code = language()
  const template = translation(code, key) ?? translation(code.split('-')[0], key) ?? english
  return template.replace(/\{(\w+)\}/g, (match, name) => (name in values ? String(values[name]) : match))
}

function translation(code, key) {
  const template = languages[code]?.equipoise?.[key]
  return typeof template === 'string' && template ? template : undefined
}

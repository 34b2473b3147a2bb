// Rules for the JavaScript of this repository: the front-end extension in web/, and the scripts of the tests and pictures, which run in Node.
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'

// ESLint may be installed outside the repository; see tests/unit/web/test_eslint.py.
const folder = process.env.ESLINT_PATH ? resolve(process.env.ESLINT_PATH) : import.meta.dirname
const js = createRequire(join(folder, 'eslint.config.mjs'))('@eslint/js')

// Only names that our code uses. A complete list has names such as `name` and `event`, and would hide a misspelt variable.
const globals = (...names) => Object.fromEntries(names.map((name) => [name, 'readonly']))
const PAGE = globals('CSS', 'CSSStyleSheet', 'Image', 'MutationObserver', 'ResizeObserver', 'document', 'getComputedStyle', 'window')
const TIMERS = globals('performance', 'requestAnimationFrame', 'setInterval', 'setTimeout')
const BOTH = globals('URL', 'URLSearchParams', 'fetch')
const NODE = globals('console', 'process')

export default [
  { ignores: ['.venv/', 'build/', 'out/', 'runs/'] }, // as in .gitignore
  js.configs.recommended,
  {
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      eqeqeq: ['error', 'always', { null: 'ignore' }], // `!= null` asks for null and undefined at once
      'no-undef': 'error',
      'no-unused-vars': 'error',
      'prefer-const': 'error'
    }
  },
  { files: ['**/*.js'], languageOptions: { globals: { ...PAGE, ...TIMERS, ...BOTH } } },
  // Scripts in Node also hold functions that run in the page.
  { files: ['**/*.mjs'], languageOptions: { globals: { ...PAGE, ...TIMERS, ...BOTH, ...NODE } } }
]

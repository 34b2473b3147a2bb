// Target Distribution and Joint Target: sliders that keep the sum, and for joint targets a table with marginals. The plain fields of the
// node stay what counts: the editor reads them, and writes them only where the user moves something.
import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'
import { SOCKETS, classesOf, forgetClasses, sourceOf } from './class_names.js'
import { addExtra, make, useStyles } from './extra_widget.js'
import { cells, marginal, rounded, withMarginal, withShare } from './shares.js'
import { attributeNames, readTarget, writeWeights } from './target_text.js'
import { text } from './texts.js'

const NODES = { EquipoiseTargetDistribution: 'attribute', EquipoiseJointTarget: 'attributes' }
const LOOK_EVERY = 300 // milliseconds; links, files and fields change in more ways than there are events for
const UNITS = 1000 // shares are written in thousandths
const editors = new Set()

app.registerExtension({
  name: 'equipoise.TargetEditor',
  setup() {
    useStyles('./editors.css')
    api.addEventListener('execution_success', forgetClasses)
    setInterval(() => document.hidden || editors.forEach((editor) => editor.look()), LOOK_EVERY)
  },
  refreshComboInNodes: forgetClasses,
  nodeCreated(node) {
    const field = NODES[node.comfyClass ?? node.type]
    if (!field || !node.addDOMWidget || !node.widgets?.some((widget) => widget.name === 'weights')) return
    const editor = new Editor(node, field)
    editors.add(editor)
    const removed = node.onRemoved
    node.onRemoved = function (...given) {
      editors.delete(editor)
      return removed?.apply(this, given)
    }
    const added = node.onAdded
    node.onAdded = function (...given) {
      editors.add(editor) // a node is also taken out and put in again, as into a subgraph
      return added?.apply(this, given)
    }
  }
})

class Editor {
  constructor(node, field) {
    this.node = node
    this.field = field
    this.seen = null
    this.held = new Map() // attribute -> names of classes that keep their share
    this.content = make('div', 'equipoise-editor', { role: 'group' })
    this.element = make('div', 'equipoise-extra', {}, this.content)
    for (const kind of ['pointerdown', 'mousedown', 'dblclick', 'contextmenu'])
      this.content.addEventListener(kind, (event) => event.target.closest('input, select, button, label') && event.stopPropagation())
    this.content.addEventListener('keydown', (event) => event.ctrlKey || event.metaKey || event.stopPropagation()) // Delete would delete the node
    this.fit = addExtra(node, 'equipoise_shares', this.element)
  }

  /** The editor is drawn anew where anything that it shows has changed elsewhere. */
  look() {
    if (!this.node.graph) return
    const now = this.state()
    const key = JSON.stringify(now)
    if (key === this.seen) return
    this.seen = key
    this.draw(now)
  }

  state() {
    const source = sourceOf(this.node)
    const answer = source?.name ? classesOf(source.kind, source.name, () => this.look()) : null
    const linked = [this.field, 'preset', 'weights'].filter((name) => this.slot(name)?.link != null)
    const joined = ['first', 'second'].every((name) => this.slot(name)?.link != null)
    const values = [this.field, 'preset', 'weights'].map((name) => String(this.widget(name)?.value ?? ''))
    return { source, answer, linked, joined, values, language: text('editor.shares', 'Shares') }
  }

  widget(name) {
    return this.node.widgets?.find((widget) => widget.name === name)
  }

  slot(name) {
    return this.node.inputs?.find((input) => input.name === name || input.widget?.name === name)
  }

  draw({ source, answer, linked, joined, values }) {
    const attributes = answer?.attributes ?? null
    let target = readTarget(...values, attributes)
    if (attributes && !source.exact && target.attributes.some((name) => !attributes[name])) target = readTarget(...values, null)
    this.attributes = attributes
    this.target = target
    const focused = this.focused()
    this.content.setAttribute('aria-label', text('editor.shares', 'Shares'))
    this.update = []
    const rows = []
    if (joined) rows.push(this.note(text('editor.joined', 'The two connected targets are joined; the fields above are not read.')))
    else if (linked.length) rows.push(this.note(text('editor.linked', 'Fed by a link: {names}. The editor rests.', { names: linked.join(', ') })))
    else {
      rows.push(this.head())
      if (target.shares && target.attributes.length === 1) rows.push(...this.sliders(0))
      else if (target.shares) rows.push(...this.joint())
      if (target.problem) rows.push(this.note(text(...target.problem), 'equipoise-problem'))
      if (answer?.error) rows.push(this.note(answer.error, 'equipoise-problem'))
      else if (source?.name && attributes) rows.push(this.note(text('editor.from', 'Names from {file}.', { file: source.name })))
      else if (source && !source.name) rows.push(this.note(text('editor.later', 'What is connected tells its classes when it runs.')))
    }
    this.content.replaceChildren(...rows)
    this.show()
    if (focused) this.content.querySelector(`[data-part="${CSS.escape(focused)}"]`)?.focus()
    this.fit()
  }

  /** Which part has the keyboard, so that drawing anew does not take it away. */
  focused() {
    return this.content.contains(document.activeElement) ? document.activeElement.dataset.part : undefined
  }

  note(words, kind = '') {
    return make('div', `equipoise-note ${kind}`, kind ? { role: 'status' } : {}, words)
  }

  /** Choice of attributes, where they are known, and the button for equal shares. */
  head() {
    const even = make('button', '', { type: 'button', 'data-part': 'even' }, text('editor.even', 'Equal shares'))
    even.title = text('editor.even_tip', "Sets the preset to 'uniform'. The weights stay as they are.")
    even.addEventListener('click', () => this.write({ preset: 'uniform' }))
    const head = make('div', 'equipoise-editor-head')
    const names = Object.keys(this.attributes ?? {})
    if (names.length > 1 && this.field === 'attribute') head.append(this.choice(names))
    if (names.length > 1 && this.field === 'attributes') head.append(this.choices(names))
    head.append(even)
    return head
  }

  choice(names) {
    const select = make('select', '', { 'aria-label': text('editor.attribute', 'Attribute'), 'data-part': 'attribute' })
    const now = this.target.attributes[0]
    for (const name of names.includes(now) ? names : [now, ...names]) select.append(make('option', '', { value: name }, name))
    select.value = now
    select.addEventListener('change', () => this.choose([select.value]))
    return select
  }

  choices(names) {
    const box = make('span', 'equipoise-choices', { role: 'group', 'aria-label': text('editor.attributes', 'Attributes') })
    for (const name of names) {
      const tick = make('input', '', { type: 'checkbox', 'data-part': `attribute ${name}` })
      tick.checked = this.target.attributes.includes(name)
      tick.addEventListener('change', () => {
        const kept = this.target.attributes.filter((n) => n && n !== name)
        const chosen = tick.checked ? [...kept, name] : kept
        if (chosen.length) this.choose(chosen)
        else tick.checked = true
      })
      box.append(make('label', '', {}, tick, name))
    }
    return box
  }

  /** Other attributes: shares are carried over where they can be (an attribute taken out, or one added with equal shares). */
  choose(names) {
    const classes = names.map((name) => this.attributes[name] ?? [])
    if (classes.some((list) => !list.length)) return this.write({ [this.field]: names.join(' x ') })
    const { attributes, shares, classes: before } = this.target
    const table = cells(classes)
    const common = attributes.filter((name) => names.includes(name))
    let wanted = table.map(() => 1 / table.length)
    if (shares && common.length) {
      const of = (cell, list) => common.map((name) => cell[list.indexOf(name)]).join('/')
      const totals = new Map()
      cells(before).forEach((cell, i) => totals.set(of(cell, attributes), (totals.get(of(cell, attributes)) ?? 0) + shares[i]))
      const each = table.length / common.reduce((n, name) => n * this.attributes[name].length, 1)
      const carried = table.map((cell) => (totals.get(of(cell, names)) ?? 0) / each)
      if (Math.abs(carried.reduce((a, b) => a + b, 0) - 1) < 1e-6) wanted = carried
    }
    const weights = writeWeights('', table.map((cell) => cell.join('/')), rounded(wanted, UNITS))
    this.write({ [this.field]: names.join(' x '), weights })
  }

  /** A slider and a number for every class of one attribute. */
  sliders(attribute) {
    const { attributes, classes } = this.target
    const names = classes[attribute]
    const counts = classes.map((list) => list.length)
    const held = this.held.get(attributes[attribute]) ?? new Set()
    return names.map((name, index) => {
      const what = attributes.length > 1 ? `${attributes[attribute]}: ${name}` : name
      const set = (share) => {
        const kept = [...held].map((n) => names.indexOf(n)).filter((i) => i >= 0 && i !== index)
        this.edit(withMarginal(this.target.shares, counts, attribute, index, share, kept))
      }
      const { slider, number } = this.pair(what, `${attribute} ${index}`, () => marginal(this.target.shares, counts, attribute)[index], set)
      const row = make('div', 'equipoise-share', {}, make('span', 'equipoise-class-name', { title: name }, name), slider, number)
      if (names.length > 2) row.append(this.hold(held, attributes[attribute], name, `${attribute} ${index}`))
      return row
    })
  }

  hold(held, attribute, name, part) {
    const tick = make('input', '', { type: 'checkbox', 'data-part': `hold ${part}` })
    tick.checked = held.has(name)
    tick.title = text('editor.hold', 'Keep the share of {name} when others are moved', { name })
    tick.setAttribute('aria-label', tick.title)
    tick.addEventListener('change', () => {
      if (tick.checked) held.add(name)
      else held.delete(name)
      this.held.set(attribute, held)
    })
    return tick
  }

  /** A slider and a number field that show one share; `set` is called with what the user wants. */
  pair(what, part, get, set) {
    const name = text('editor.share_of', 'Share of {name} in per cent', { name: what })
    const common = { min: '0', max: '100', 'aria-label': name }
    const slider = make('input', '', { ...common, type: 'range', step: '1', 'data-part': `slider ${part}` })
    const number = make('input', '', { ...common, type: 'number', step: 'any', 'data-part': `number ${part}` })
    slider.addEventListener('input', () => set(slider.value / 100))
    slider.addEventListener('change', () => this.remember())
    number.addEventListener('change', () => number.value !== '' && Number.isFinite(+number.value) && (set(number.value / 100), this.remember()))
    number.addEventListener('keydown', (event) => {
      if (event.key !== 'ArrowUp' && event.key !== 'ArrowDown') return
      event.preventDefault()
      set(Math.round(100 * get() + (event.key === 'ArrowUp' ? 1 : -1)) / 100)
      this.remember()
    })
    this.update.push(() => {
      const percent = 100 * get()
      if (slider !== document.activeElement || Math.abs(slider.value - percent) > 0.6) slider.value = percent
      slider.setAttribute('aria-valuetext', `${+percent.toFixed(1)}%`)
      number.value = +percent.toFixed(1)
    })
    return { slider, number }
  }

  /** A table with a number per cell, rows and columns with their marginals; every attribute's marginals as sliders above it. */
  joint() {
    const { attributes, classes } = this.target
    const found = attributes.flatMap((name, i) => [make('div', 'equipoise-attribute-name', {}, name), ...this.sliders(i)])
    const [across, down] = [classes.at(-1), cells(classes.slice(0, -1))]
    const table = make('table', '', { 'aria-label': attributes.join(' x ') })
    const heading = (scope, words) => make('th', '', { scope, title: words }, words)
    const total = text('editor.total', 'total')
    table.append(make('tr', '', {}, make('td'), ...across.map((name) => heading('col', name)), heading('col', total)))
    down.forEach((cell, r) => {
      const row = make('tr', '', {}, heading('row', cell.join('/')))
      across.forEach((name, c) => row.append(make('td', '', {}, this.cell([...cell, name].join('/'), r * across.length + c))))
      table.append(row)
      row.append(this.output(() => across.reduce((all, _, c) => all + this.target.shares[r * across.length + c], 0)))
    })
    const foot = make('tr', '', {}, heading('row', total))
    across.forEach((_, c) => foot.append(this.output(() => down.reduce((all, _, r) => all + this.target.shares[r * across.length + c], 0))))
    foot.append(this.output(() => this.target.shares.reduce((a, b) => a + b, 0)))
    table.append(foot)
    return [...found, make('div', 'equipoise-table', {}, table)]
  }

  cell(name, index) {
    return this.pair(name, `cell ${index}`, () => this.target.shares[index], (share) => this.edit(withShare(this.target.shares, index, share))).number
  }

  output(get) {
    const cell = make('td', 'equipoise-total')
    this.update.push(() => (cell.textContent = `${+(100 * get()).toFixed(1)}%`))
    return cell
  }

  show() {
    for (const update of this.update ?? []) update()
  }

  /** The user moved something: the node's own fields are written. */
  edit(shares) {
    const weights = writeWeights(String(this.widget('weights')?.value ?? ''), cells(this.target.classes).map((c) => c.join('/')), rounded(shares, UNITS))
    this.write({ preset: 'weights', weights }, shares)
  }

  write(values, shares = null) {
    for (const [name, value] of Object.entries(values)) {
      const widget = this.widget(name)
      if (!widget || widget.value === value) continue
      widget.value = value
      widget.callback?.(value, app.canvas, this.node)
    }
    this.node.graph?.setDirtyCanvas?.(true, true)
    if (!shares || this.target.problem) {
      this.look()
      return this.remember()
    }
    // While a slider is dragged, the rows stay and the shares keep what rounding would lose.
    this.target = { ...this.target, shares }
    this.seen = JSON.stringify(this.state())
    this.show()
  }

  /** Tell the front end's undo that something was changed. */
  remember() {
    const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker
    if (tracker?.captureCanvasState) tracker.captureCanvasState()
    else tracker?.checkState?.()
  }
}

// Sliders for Target Distribution that keep the sum of the shares; for joint targets also a table with marginals.
//
// The node's own fields stay in charge: the editor reads them, and writes them only when the user moves something.
import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'
import { classesOf, forgetClasses, sourceOf } from './class_names.js'
import { addExtra, make, useStyles } from './extra_widget.js'
import { recordForUndo, setField } from './graph.js'
import { carriedOver, cells, marginal, rounded, sum, withMarginal, withShare } from './shares.js'
import { readTarget, writeWeights } from './target_text.js'
import { text } from './texts.js'
import { writtenName } from './written_names.js'

const NODE = 'EquipoiseTargetDistribution'
const FIELDS = ['attribute', 'preset', 'weights']
const CHECK_EVERY = 300 // milliseconds; no event covers all changes of links, files and fields
const UNITS = 1000 // shares are written in thousandths
const editors = new Set()

app.registerExtension({
  name: 'equipoise.TargetEditor',
  setup() {
    useStyles('./editors.css')
    api.addEventListener('execution_success', forgetClasses)
    setInterval(() => document.hidden || editors.forEach((editor) => editor.refresh()), CHECK_EVERY)
  },
  refreshComboInNodes: forgetClasses,
  nodeCreated(node) {
    if ((node.comfyClass ?? node.type) !== NODE || !node.addDOMWidget || !node.widgets?.some((widget) => widget.name === 'weights')) return
    const editor = new Editor(node)
    editors.add(editor)
    const removed = node.onRemoved
    node.onRemoved = function (...args) {
      editors.delete(editor)
      return removed?.apply(this, args)
    }
    const added = node.onAdded
    node.onAdded = function (...args) {
      editors.add(editor) // the front end removes a node and adds it again, for example to move it into a subgraph
      return added?.apply(this, args)
    }
  }
})

/** The editor of one node. */
class Editor {
  constructor(node) {
    this.node = node
    this.drawnState = null
    this.several = false // whether the user asked for a choice of several attributes
    this.locked = new Map() // attribute -> names of classes whose share does not change
    this.content = make('div', 'equipoise-editor', { role: 'group' })
    this.element = make('div', 'equipoise-extra', {}, this.content)
    for (const kind of ['pointerdown', 'mousedown', 'dblclick', 'contextmenu'])
      this.content.addEventListener(kind, (event) => event.target.closest('input, select, button, label') && event.stopPropagation())
    this.content.addEventListener('keydown', (event) => event.ctrlKey || event.metaKey || event.stopPropagation()) // Delete would delete the node
    this.fit = addExtra(node, 'equipoise_shares', this.element, () => text('editor.shares', 'Shares'))
  }

  /** Draw the editor again if something that it shows has changed elsewhere. */
  refresh() {
    if (!this.node.graph) return
    const state = this.state()
    const key = JSON.stringify(state)
    if (key === this.drawnState) return
    this.drawnState = key
    this.draw(state)
  }

  state() {
    const source = sourceOf(this.node)
    const answer = source?.name ? classesOf(source.kind, source.name, () => this.refresh()) : null
    const linked = FIELDS.filter((name) => this.slot(name)?.link != null)
    const joined = this.slot('with_target')?.link != null
    const values = FIELDS.map((name) => String(this.widget(name)?.value ?? ''))
    return { source, answer, linked, joined, values, language: text('editor.shares', 'Shares') }
  }

  widget(name) {
    return this.node.widgets?.find((widget) => widget.name === name)
  }

  slot(name) {
    return this.node.inputs?.find((input) => input.name === name || input.widget?.name === name)
  }

  draw({ source, answer, linked, joined, values }) {
    this.attributes = answer?.attributes ?? null
    this.target = this.read(values, source)
    const focused = this.focused()
    this.content.setAttribute('aria-label', text('editor.shares', 'Shares'))
    this.updates = []
    const notes = this.notes(source, answer, joined)
    if (linked.length) this.content.replaceChildren(note(linkedNote(linked)))
    else this.content.replaceChildren(this.head(), ...this.shares(), ...notes)
    this.update()
    if (focused) this.content.querySelector(`[data-part="${CSS.escape(focused)}"]`)?.focus()
    this.fit()
  }

  /** Read the node's fields. If a node on the path may add attributes, take those that the file lacks from the fields. */
  read(values, source) {
    const target = readTarget(...values, this.attributes)
    const added = this.attributes && !source.exact && target.attributes.some((name) => !this.attributes[name])
    return added ? readTarget(...values, null) : target
  }

  /** Name the part that has the keyboard, so that it keeps it when the editor is drawn again. */
  focused() {
    return this.content.contains(document.activeElement) ? document.activeElement.dataset.part : undefined
  }

  /** Make the controls of the shares. */
  shares() {
    if (!this.target.shares) return []
    return this.target.attributes.length === 1 ? this.sliders(0) : this.joint()
  }

  /** Make the lines below the shares: what is wrong with the target, what it is joined with, and where its classes come from. */
  notes(source, answer, joined) {
    const notes = []
    if (this.target.problem) notes.push(problemNote(text(...this.target.problem)))
    if (joined) notes.push(note(text('editor.joined', 'The node joins these shares with the target at with_target.')))
    if (answer?.error) notes.push(problemNote(answer.error))
    else if (source?.name && this.attributes) notes.push(note(text('editor.from', 'The class names come from {file}.', { file: source.name })))
    else if (source && !source.name) notes.push(note(text('editor.later', 'The classes are not known before the connected node runs.')))
    return notes
  }

  /** Make the choice of attributes, if they are known, and the button for equal shares. Several attributes have boxes to tick. */
  head() {
    const even = make('button', '', { type: 'button', 'data-part': 'even' }, text('editor.even', 'Equal shares'))
    even.title = text('editor.even_tip', "Sets the preset to 'uniform'. The weights stay as they are.")
    even.addEventListener('click', () => this.write({ preset: 'uniform' }))
    const head = make('div', 'equipoise-editor-head')
    const names = Object.keys(this.attributes ?? {})
    if (names.length > 1) head.append(this.several || this.target.attributes.length > 1 ? this.choices(names) : this.choice(names))
    head.append(even)
    return head
  }

  choice(names) {
    const select = make('select', '', { 'aria-label': text('editor.attribute', 'Attribute'), 'data-part': 'attribute' })
    const current = this.target.attributes[0]
    for (const name of names.includes(current) ? names : [current, ...names]) select.append(make('option', '', { value: name }, name))
    select.value = current
    select.append(make('option', '', {}, text('editor.several', 'Several attributes ...')))
    select.addEventListener('change', () => {
      if (select.selectedIndex < select.options.length - 1) return this.choose([select.value])
      this.several = true
      this.drawnState = null
      this.refresh()
      this.content.querySelector('[data-part^="attribute "]')?.focus()
    })
    return select
  }

  choices(names) {
    const box = make('span', 'equipoise-choices', { role: 'group', 'aria-label': text('editor.attributes', 'Attributes') })
    for (const name of names) {
      const tick = make('input', '', { type: 'checkbox', 'data-part': `attribute ${name}` })
      tick.checked = this.target.attributes.includes(name)
      tick.addEventListener('change', () => {
        this.several = true // the boxes stay where one attribute is left
        const others = this.target.attributes.filter((n) => n && n !== name)
        const chosen = tick.checked ? [...others, name] : others
        if (chosen.length) this.choose(chosen)
        else tick.checked = true
      })
      box.append(make('label', '', {}, tick, name))
    }
    return box
  }

  /** Change the attributes. Shares are carried over if they can be, else they become equal. */
  choose(names) {
    const classes = names.map((name) => this.attributes[name] ?? [])
    if (classes.some((list) => !list.length)) return this.write({ attribute: names.map(writtenName).join(' x ') })
    const { shares } = this.target
    const table = cells(classes)
    const carried = shares && carriedOver(shares, this.target, { attributes: names, classes })
    const wanted = carried ?? table.map(() => 1 / table.length)
    const weights = writeWeights('', table, rounded(wanted, UNITS))
    this.write({ attribute: names.map(writtenName).join(' x '), weights })
  }

  /** Make a slider and a number for every class of one attribute. */
  sliders(attribute) {
    const { attributes, classes } = this.target
    const names = classes[attribute]
    const counts = classes.map((list) => list.length)
    const locked = this.locked.get(attributes[attribute]) ?? new Set()
    return names.map((name, index) => {
      const set = (share) => {
        const others = [...locked].map((n) => names.indexOf(n)).filter((i) => i >= 0 && i !== index)
        this.edit(withMarginal(this.target.shares, counts, attribute, index, share, others))
      }
      const fullName = attributes.length > 1 ? `${attributes[attribute]}: ${name}` : name
      const part = `${attribute} ${index}`
      const { slider, number } = this.pair(fullName, part, () => marginal(this.shown, counts, attribute)[index], set)
      const row = make('div', 'equipoise-share', {}, make('span', 'equipoise-class-name', { title: name }, name), slider, number)
      if (names.length > 2) row.append(this.lock(locked, attributes[attribute], name, part))
      return row
    })
  }

  /** Make the box that locks a class's share. */
  lock(locked, attribute, name, part) {
    const tick = make('input', '', { type: 'checkbox', 'data-part': `lock ${part}` })
    tick.checked = locked.has(name)
    tick.title = text('editor.hold', 'Keep the share of {name} when you move the others', { name })
    tick.setAttribute('aria-label', tick.title)
    tick.addEventListener('change', () => {
      if (tick.checked) locked.add(name)
      else locked.delete(name)
      this.locked.set(attribute, locked)
    })
    return tick
  }

  /** Make a slider and a number field that show one share. `set` is called with the share that the user wants. */
  pair(name, part, get, set) {
    const common = { min: '0', max: '100', 'aria-label': text('editor.share_of', 'Share of {name} in per cent', { name }) }
    const slider = make('input', '', { ...common, type: 'range', step: '1', 'data-part': `slider ${part}` })
    const number = make('input', '', { ...common, type: 'number', step: 'any', 'data-part': `number ${part}` })
    const finish = (share) => {
      set(share)
      recordForUndo()
    }
    slider.addEventListener('input', () => set(slider.value / 100))
    slider.addEventListener('change', recordForUndo)
    number.addEventListener('change', () => number.value !== '' && Number.isFinite(+number.value) && finish(number.value / 100))
    number.addEventListener('keydown', (event) => {
      if (event.key !== 'ArrowUp' && event.key !== 'ArrowDown') return
      event.preventDefault()
      finish(Math.round(100 * get() + (event.key === 'ArrowUp' ? 1 : -1)) / 100)
    })
    this.updates.push(() => {
      const percent = 100 * get()
      if (slider !== document.activeElement || Math.abs(slider.value - percent) > 0.6) slider.value = percent
      slider.setAttribute('aria-valuetext', `${+percent.toFixed(1)}%`)
      number.value = +percent.toFixed(1)
    })
    return { slider, number }
  }

  /** Make the sliders of every attribute's marginals, and a table with a number per cell. */
  joint() {
    const { attributes } = this.target
    const sliders = attributes.flatMap((name, i) => [make('div', 'equipoise-attribute-name', {}, name), ...this.sliders(i)])
    return [...sliders, make('div', 'equipoise-table', {}, this.table())]
  }

  /** Make the table of a joint target. The last attribute runs across, the others run down. */
  table() {
    const { attributes, classes } = this.target
    const across = classes.at(-1)
    const down = cells(classes.slice(0, -1))
    const total = text('editor.total', 'total')
    const share = (r, c) => this.shown[r * across.length + c]
    const titles = make('tr', '', {}, make('td'), ...across.map((name) => heading('col', name)), heading('col', total))
    const rows = down.map((cell, r) => {
      const fields = across.map((name, c) => make('td', '', {}, this.cell([...cell, name].join('/'), r * across.length + c)))
      return make('tr', '', {}, heading('row', cell.join('/')), ...fields, this.total(() => sum(across.map((_, c) => share(r, c)))))
    })
    const columns = across.map((_, c) => this.total(() => sum(down.map((_, r) => share(r, c)))))
    const foot = make('tr', '', {}, heading('row', total), ...columns, this.total(() => sum(this.shown)))
    return make('table', '', { 'aria-label': attributes.join(' x ') }, titles, ...rows, foot)
  }

  /** Make the number field of one cell. */
  cell(name, index) {
    const set = (share) => this.edit(withShare(this.target.shares, index, share))
    return this.pair(name, `cell ${index}`, () => this.shown[index], set).number
  }

  /** Make a field of the table that shows a sum. */
  total(get) {
    const field = make('td', 'equipoise-total')
    this.updates.push(() => (field.textContent = `${+(100 * get()).toFixed(1)}%`))
    return field
  }

  /** Show the current shares in all controls, rounded so that the percentages add up to 100. */
  update() {
    this.shown = this.target.shares && rounded(this.target.shares, UNITS)
    for (const update of this.updates ?? []) update()
  }

  /** Write shares that the user has set to the node's fields. */
  edit(shares) {
    const weights = writeWeights(String(this.widget('weights')?.value ?? ''), cells(this.target.classes), rounded(shares, UNITS))
    this.write({ preset: 'weights', weights }, shares)
  }

  write(values, shares = null) {
    for (const [name, value] of Object.entries(values)) {
      const widget = this.widget(name)
      if (widget && widget.value !== value) setField(this.node, widget, value)
    }
    this.node.graph?.setDirtyCanvas?.(true, true)
    if (!shares || this.target.problem) {
      this.refresh()
      return recordForUndo()
    }
    // While the user drags a slider, the rows stay, and the shares keep what rounding would lose.
    this.target = { ...this.target, shares }
    this.drawnState = JSON.stringify(this.state())
    this.update()
  }
}

function linkedNote(names) {
  return text('editor.linked', 'Links set these inputs: {names}. Remove the links to use the sliders.', { names: names.join(', ') })
}

function note(words) {
  return make('div', 'equipoise-note', {}, words)
}

function problemNote(words) {
  return make('div', 'equipoise-note equipoise-problem', { role: 'status' }, words)
}

function heading(scope, words) {
  return make('th', '', { scope, title: words }, words)
}

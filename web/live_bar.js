// The live bar of the guidance and steering nodes: while a batch is sampled, it shows the current reading, how many images each class was
// assigned, and the target. The server sends the figures at most ten times a second (host/core/live.py).
import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'
import { addExtra, make, useStyles } from './extra_widget.js'
import { percents } from './percents.js'
import { TabOutputs } from './tab_outputs.js'
import { text } from './texts.js'

const NODES = ['EquipoiseDistributionGuidance', 'EquipoiseDistributionGuidanceKSampler', 'EquipoiseBiasFeatureSteer']
const COLOURS = ['#0072B2', '#E69F00', '#009E73', '#D55E00', '#56B4E9', '#CC79A7', '#F0E442', '#8A8A8A'] // as in charts/core/style.py
const bars = new WeakMap() // node -> its bar
const messages = new TabOutputs(NODES, (node, message) => barOf(node).show(message))

app.registerExtension({
  name: 'equipoise.LiveBar',
  setup() {
    useStyles('./equipoise.css')
    api.addEventListener('equipoise.reading', ({ detail }) => messages.take(detail.node, detail, detail))
    for (const kind of ['execution_interrupted', 'execution_error'])
      api.addEventListener(kind, ({ detail }) => messages.update((message) => (message.prompt === detail?.prompt_id ? { ...message, stopped: true } : message)))
  }
})

/** Get a node's bar; make it the first time. */
function barOf(node) {
  if (!bars.has(node)) bars.set(node, new Bar(node))
  return bars.get(node)
}

/** The bar of one node: a row for each attribute. */
class Bar {
  constructor(node) {
    this.step = make('span', 'equipoise-step')
    this.rows = make('div')
    this.spoken = make('span', 'equipoise-spoken', { role: 'status' })
    const title = text('bar.title', 'Shares in this batch')
    const head = make('div', 'equipoise-head', {}, make('span', '', {}, title), this.step)
    this.content = make('div', 'equipoise-bar', { role: 'group', tabindex: '0', 'aria-label': title }, head, this.rows, this.spoken)
    this.content.title = text(
      'bar.legend',
      'The bar shows the share of each class that the ADP reads at this step. The strip below it shows how many images each class was assigned. The lines mark the target. The numbers after a class are its share now, its target and its assigned images.'
    )
    this.fit = addExtra(node, 'equipoise_live_bar', make('div', 'equipoise-extra', {}, this.content), () => text('bar.title', 'Shares in this batch'))
    this.shape = ''
  }

  show(message) {
    const shape = JSON.stringify(message.attributes.map((a) => [a.name, a.classes, a.target]))
    if (shape !== this.shape) {
      this.shape = shape
      this.attributes = message.attributes.map((a) => new AttributeRow(a))
      this.rows.replaceChildren(...this.attributes.map((a) => a.element))
    }
    this.attributes.forEach((row, i) => row.show(message.attributes[i]))
    this.step.textContent = progress(message)
    // A screen reader gets only the last state: ten announcements a second would help nobody.
    const done = message.step >= message.steps
    this.spoken.textContent = done ? [this.step.textContent, ...this.attributes.map((a) => a.summary)].join('. ') : ''
    this.fit()
  }
}

/** Say how far a run has come. */
function progress(message) {
  if (message.exempt) return text('bar.exempt', 'exempt from guidance')
  if (message.step >= message.steps) return text('bar.done', '{steps} steps done', message)
  if (message.stopped) return text('bar.stopped', 'stopped after step {step} of {steps}', message)
  return text('bar.step', 'step {step} of {steps}', message)
}

/** One attribute of a bar: shares, quotas, the target's lines, and the figures of each class. */
class AttributeRow {
  constructor({ name, classes, target }) {
    this.name = name
    this.read = classes.map((_, i) => make('span', '', { style: background(i) }))
    this.assigned = classes.map((_, i) => make('span', '', { style: background(i) }))
    this.figures = classes.map(() => make('span'))
    this.bar = make('div', 'equipoise-shares', { role: 'img' }, ...this.read)
    const quotas = make('div', 'equipoise-quotas', { 'aria-hidden': 'true' }, ...this.assigned)
    const track = make('div', 'equipoise-track', {}, this.bar, quotas, ...targetLines(target))
    const legend = classes.map((_, i) => make('span', 'equipoise-class', {}, make('b', '', { style: background(i) }), this.figures[i]))
    const classList = make('div', 'equipoise-classes', {}, ...legend)
    this.element = make('div', 'equipoise-attribute', {}, make('div', 'equipoise-name', {}, name), track, classList)
  }

  show({ classes, target, read, assigned }) {
    const images = assigned?.reduce((a, b) => a + b, 0)
    const [now, wanted] = [read ? percents(read) : [], percents(target)]
    classes.forEach((name, i) => {
      this.read[i].style.width = `${100 * (read?.[i] ?? 0)}%`
      this.assigned[i].style.width = images ? `${(100 * assigned[i]) / images}%` : '0'
      const parts = [`${name} ${read ? `${now[i]}%` : '-'}`, `${wanted[i]}%`]
      this.figures[i].textContent = parts.join(' \u2192 ') + (images ? ` (${assigned[i]})` : '')
    })
    const states = classes.map((name, i) => classSummary(name, wanted[i], now[i], images ? assigned[i] : undefined))
    this.summary = `${this.name}: ${states.join('; ')}`
    this.bar.setAttribute('aria-label', this.summary)
  }
}

/** Put the figures of one class into words, for screen readers. */
function classSummary(name, target, read, assigned) {
  const values = { name, target: `${target}%`, read: read === undefined ? '' : `${read}%`, assigned }
  const parts = [
    read === undefined
      ? text('bar.class_unread', '{name} without a reading, target {target}', values)
      : text('bar.class_read', '{name} {read}, target {target}', values)
  ]
  if (assigned !== undefined) parts.push(text('bar.class_assigned', '{assigned} images assigned', values))
  return parts.join(', ')
}

/** Make a line at the end of each class's share of the target but the last. */
function targetLines(target) {
  let end = 0
  return target.slice(0, -1).map((share) => {
    end += share
    return make('i', '', { style: `left:${100 * end}%` })
  })
}

function background(i) {
  return `background:${COLOURS[i % COLOURS.length]}`
}

// While a batch is drawn, the guidance and steering nodes show what it is read as now, how many images each class was assigned, and the
// target. What is shown comes from the server (host/live.py), at most ten times a second.
import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'
import { addExtra, findNode, make, useStyles } from './extra_widget.js'
import { text } from './texts.js'

const NODES = ['EquipoiseDistributionGuidance', 'EquipoiseDistributionGuidanceKSampler', 'EquipoiseBiasFeatureSteer']
const COLOURS = ['#0072B2', '#E69F00', '#009E73', '#D55E00', '#56B4E9', '#CC79A7', '#F0E442', '#8A8A8A'] // as in charts/style.py
const bars = new Map() // node -> its bar
const waiting = new Map() // node id -> the latest message that is not drawn yet
let running = false

app.registerExtension({
  name: 'equipoise.LiveBar',
  setup() {
    useStyles('./equipoise.css')
    api.addEventListener('equipoise.reading', (event) => {
      waiting.set(event.detail.node, event.detail)
      if (waiting.size === 1) requestAnimationFrame(drawWaiting)
    })
    api.addEventListener('execution_start', () => (running = true))
    api.addEventListener('execution_success', () => (running = false))
    for (const kind of ['execution_interrupted', 'execution_error']) api.addEventListener(kind, stopped)
  }
})

function drawWaiting() {
  const messages = [...waiting.values()]
  waiting.clear()
  for (const message of messages) {
    const node = findNode(message.node)
    if (!node || !NODES.includes(node.comfyClass ?? node.type)) continue
    if (!bars.has(node)) {
      bars.set(node, new Bar(node))
      const removed = node.onRemoved
      node.onRemoved = function (...given) {
        bars.delete(node)
        return removed?.apply(this, given)
      }
    }
    bars.get(node).show(message)
  }
}

function stopped() {
  drawWaiting() // the last message may still wait for its frame, and would be drawn over what is said now
  if (running) for (const bar of bars.values()) bar.stop()
  running = false
}

class Bar {
  constructor(node) {
    this.step = make('span', 'equipoise-step')
    this.rows = make('div')
    this.spoken = make('span', 'equipoise-spoken', { role: 'status' })
    const title = text('bar.title', 'What the batch is read as')
    const head = make('div', 'equipoise-head', {}, make('span', '', {}, title), this.step)
    this.content = make('div', 'equipoise-bar', { role: 'group', tabindex: '0', 'aria-label': title }, head, this.rows, this.spoken)
    this.content.title = text(
      'bar.legend',
      'Bar: shares read by the ADP now. Strip below it: images assigned to each class. Lines: the target. After each class: read, target, images assigned.'
    )
    this.fit = addExtra(node, 'equipoise_live_bar', make('div', 'equipoise-extra', {}, this.content))
    this.shape = ''
    this.told = null
  }

  show(told) {
    this.told = told
    const shape = JSON.stringify(told.attributes.map((a) => [a.name, a.classes]))
    if (shape !== this.shape) {
      this.shape = shape
      this.attributes = told.attributes.map((a) => new Attribute(a))
      this.rows.replaceChildren(...this.attributes.map((a) => a.element))
    }
    this.attributes.forEach((row, i) => row.show(told.attributes[i]))
    const done = told.step >= told.steps
    this.step.textContent = told.exempt
      ? text('bar.exempt', 'exempt from guidance')
      : done
        ? text('bar.done', '{steps} steps done', told)
        : text('bar.step', 'step {step} of {steps}', told)
    // Not at every step: ten announcements a second help nobody.
    this.spoken.textContent = done ? [this.step.textContent, ...this.attributes.map((a) => a.said)].join('. ') : ''
    this.fit()
  }

  stop() {
    if (this.told && this.told.step < this.told.steps) this.step.textContent = text('bar.stopped', 'stopped after step {step} of {steps}', this.told)
  }
}

class Attribute {
  constructor({ name, classes, target }) {
    this.name = name
    this.read = classes.map((_, i) => make('span', '', { style: `background:${colour(i)}` }))
    this.assigned = classes.map((_, i) => make('span', '', { style: `background:${colour(i)}` }))
    this.figures = classes.map(() => make('span'))
    let sum = 0
    const lines = target.slice(0, -1).map((share) => make('i', '', { style: `left:${100 * (sum += share)}%` }))
    this.bar = make('div', 'equipoise-shares', { role: 'img' }, ...this.read)
    this.track = make('div', 'equipoise-track', {}, this.bar, make('div', 'equipoise-quotas', { 'aria-hidden': 'true' }, ...this.assigned), ...lines)
    const legend = classes.map((_, i) => make('span', 'equipoise-class', {}, make('b', '', { style: `background:${colour(i)}` }), this.figures[i]))
    this.element = make('div', 'equipoise-attribute', {}, make('div', 'equipoise-name', {}, name), this.track, make('div', 'equipoise-classes', {}, ...legend))
  }

  show({ classes, target, read, assigned }) {
    const images = assigned?.reduce((a, b) => a + b, 0)
    classes.forEach((name, i) => {
      this.read[i].style.width = `${100 * (read?.[i] ?? 0)}%`
      this.assigned[i].style.width = images ? `${(100 * assigned[i]) / images}%` : '0'
      const parts = [`${name} ${read ? percent(read[i]) : '-'}`, percent(target[i])]
      this.figures[i].textContent = parts.join(' \u2192 ') + (images ? ` (${assigned[i]})` : '')
    })
    const values = (i) => ({ name: classes[i], target: percent(target[i]), read: read && percent(read[i]), assigned: assigned?.[i] })
    const told = classes.map((_, i) =>
      [
        read ? text('bar.class_read', '{name} read {read} of target {target}', values(i)) : text('bar.class_unread', '{name} not read, target {target}', values(i)),
        ...(images ? [text('bar.class_assigned', '{assigned} images assigned', values(i))] : [])
      ].join(', ')
    )
    this.said = `${this.name}: ${told.join('; ')}`
    this.bar.setAttribute('aria-label', this.said)
  }
}

function colour(i) {
  return COLOURS[i % COLOURS.length]
}

function percent(share) {
  return `${Math.round(100 * share)}%`
}

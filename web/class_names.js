// Find the attributes and classes for a target node: trace its sockets to the file that a loader has chosen, and ask the server what is in it.
import { api } from '../../scripts/api.js'

const SOCKETS = ['adp', 'classifier', 'bias_features'] // in the order in which the target nodes use them
const LOADERS = {
  EquipoiseLoadADP: ['adp', 'adp_name'],
  EquipoiseLoadAttributeClassifier: ['classifier', 'classifier_name'],
  EquipoiseLoadBiasFeatures: ['bias_features', 'bias_features_name']
}
const BYPASSED = 4
const MUTED = 2
const SUBGRAPH_INPUT = -10
const MAX_DEPTH = 64

/**
 * Find the source of a target node's first connected socket: { kind, name, exact }, or null if no socket is connected.
 *
 * `name` is the chosen file. It is null if it cannot be known before a run, as for a model that is being trained. `exact` is false if a node
 * on the path may add attributes to those of the file.
 */
export function sourceOf(node) {
  for (const socket of SOCKETS) {
    const source = trace(node, socket)
    if (source) return { kind: socket, name: null, exact: false, ...source }
  }
  return null
}

/**
 * Follow a socket's link through reroutes, subgraphs and bypassed nodes to a loader: { kind, name, exact }.
 *
 * Returns an empty object if another node makes the value, and null if nothing is connected.
 */
function trace(node, socket) {
  const input = node.inputs?.find((slot) => slot.name === socket)
  let end = input ? origin(node.graph, input.link) : null
  let exact = true
  for (let i = 0; end && i < MAX_DEPTH; i++) {
    const bypassed = end.node.mode === BYPASSED
    const loader = LOADERS[end.node.type]
    if (end.node.mode === MUTED) return null
    if (loader && !bypassed) return { kind: loader[0], name: chosenFile(end.node, loader[1]), exact }
    const next = upstream(end)
    if (!next) return bypassed || isReroute(end.node) ? null : {}
    exact &&= next.exact
    end = origin(next.graph, next.link)
  }
  return null
}

/** Find the link from which a node passes a value on: { graph, link, exact }, or null if the node makes the value itself. */
function upstream({ node, slot }) {
  const bypassed = node.mode === BYPASSED
  if (node.subgraph && !bypassed) return { graph: node.subgraph, link: node.subgraph.outputs?.[slot]?.linkIds?.[0], exact: true }
  const only = isReroute(node) ? node.inputs?.find((input) => input.link != null) : null
  if (only) return { graph: node.graph, link: only.link, exact: true }
  const type = node.outputs?.[slot]?.type
  const same = node.inputs?.find((input) => input.type === type && input.link != null)
  return same ? { graph: node.graph, link: same.link, exact: bypassed } : null
}

/** Tell whether a node is a reroute, of the front end or of another pack. */
function isReroute(node) {
  return /reroute/i.test(node.type ?? '') || (node.isVirtualNode && node.inputs?.length === 1 && node.outputs?.length === 1)
}

/** Find the output that a link comes from: { node, slot }. From a subgraph's own input, go on outside the subgraph. */
function origin(graph, id) {
  for (let i = 0; graph && id != null && i < MAX_DEPTH; i++) {
    const link = graph.getLink?.(id) ?? graph.links?.get?.(id) ?? graph.links?.[id]
    if (!link) return null
    if (Number(link.origin_id) !== SUBGRAPH_INPUT) { // newer front ends have text here
      const node = graph.getNodeById(link.origin_id)
      return node ? { node, slot: link.origin_slot } : null
    }
    const outer = instances(graph)
    if (outer.length !== 1) return null // each instance may get another file
    id = outer[0].inputs?.[link.origin_slot]?.link
    graph = outer[0].graph
  }
  return null
}

/** List the nodes that stand for a subgraph, anywhere in the workflow. */
function instances(subgraph) {
  const root = subgraph.rootGraph ?? subgraph
  const graphs = [root, ...(root.subgraphs?.values?.() ?? [])]
  return graphs.flatMap((graph) => (graph._nodes ?? []).filter((node) => node.subgraph === subgraph))
}

/** Read the file that a loader has chosen; null if a link sets it and the front end does not know the link's value. */
function chosenFile(node, name) {
  const input = node.inputs?.find((slot) => slot.widget?.name === name && slot.link != null)
  if (!input) return node.widgets?.find((widget) => widget.name === name)?.value ?? null
  const from = origin(node.graph, input.link)?.node
  return from?.type === 'PrimitiveNode' ? (from.widgets?.[0]?.value ?? null) : null
}

const answers = new Map() // "kind/name" -> answer, null until the server has sent it

/** Forget the server's answers, because files may have changed. */
export function forgetClasses() {
  answers.clear()
}

/**
 * Get the attributes and classes of a file: { attributes }, or { error }, or null while the server has not answered.
 *
 * The server is asked once per file. `ready` is called when its answer comes.
 */
export function classesOf(kind, name, ready) {
  const key = `${kind}/${name}`
  if (!answers.has(key)) {
    answers.set(key, null)
    ask(kind, name).then((answer) => {
      answers.set(key, answer)
      ready()
    })
  }
  return answers.get(key)
}

/** Ask the server for the classes in a file. */
async function ask(kind, name) {
  try {
    const response = await api.fetchApi(`/equipoise/classes?kind=${encodeURIComponent(kind)}&name=${encodeURIComponent(name)}`)
    const content = await response.json()
    return content.attributes || content.error ? content : { error: `HTTP ${response.status}` }
  } catch (error) {
    return { error: String(error) }
  }
}

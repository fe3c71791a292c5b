/**
 * One bus of the tree: the nodes on it by device and function number, and the bridge above it.
 * Next: bridge.ts (who numbers a bus), fabric.ts (who looks nodes up).
 */
import type { RootPort } from './bridge.js'
import type { Fabric, PciNode } from './node.js'

/** A bus; bus 0 belongs to the root complex, every other one to a root port. */
export class Bus {
  /** Bus number; software programs it into the bridge above. */
  number = 0
  readonly fabric: Fabric
  /** The bridge above, or undefined for the root bus. */
  readonly bridge: RootPort | undefined
  readonly #nodes: (PciNode | undefined)[] = []

  constructor(fabric: Fabric, bridge?: RootPort) {
    this.fabric = fabric
    this.bridge = bridge
  }

  /** The nodes in order of device and function number. */
  nodes(): PciNode[] {
    return this.#nodes.filter(n => n !== undefined)
  }

  node(devfn: number): PciNode | undefined {
    return this.#nodes[devfn]
  }

  /** Whether the device has a function above 0. */
  isMultiFunction(device: number): boolean {
    return this.#nodes.some((n, devfn) => n !== undefined && devfn >> 3 === device && devfn & 7)
  }

  /** Whether a virtual function can appear there. */
  free(devfn: number): boolean {
    return devfn <= (this.bridge ? 7 : 255) && this.#nodes[devfn] === undefined
  }

  /** Puts a virtual function at its place; the device does not become multi-function by that (PCIe 9.2.1.2). */
  addVirtual(node: PciNode): void {
    this.#nodes[node.devfn] = node
    this.fabric.configChanged()
    this.fabric.decodeChanged()
  }

  /** Takes a virtual function away. */
  remove(node: PciNode): void {
    if (this.#nodes[node.devfn] === node) this.#nodes[node.devfn] = undefined
    this.fabric.configChanged()
    this.fabric.decodeChanged()
  }

  /** Puts a node at its place. A device must have a function 0 before it can have others. */
  add<N extends PciNode>(node: N): N {
    const { devfn } = node
    if (!Number.isInteger(devfn) || devfn < 0 || devfn > 255 || this.#nodes[devfn])
      throw new RangeError(`${node.name}: device and function ${devfn} is taken or does not exist`)
    if (this.bridge && devfn > 7)
      throw new RangeError(`${node.name}: a link has device 0 only (PCIe 7.3.1)`)
    if (devfn & 7) {
      const zero = this.#nodes[devfn & ~7]
      if (!zero) throw new RangeError(`${node.name}: the device has no function 0`)
      this.#nodes[devfn] = node
      for (const n of this.#nodes) if (n && n.devfn >> 3 === devfn >> 3) n.markMultiFunction()
    } else this.#nodes[devfn] = node
    this.fabric.decodeChanged()
    return node
  }
}

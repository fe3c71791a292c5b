import { explain, explanation, walkTree } from 'vfio-emu'
import { bench } from 'vfio-emu/testing'

// 1. A guest's address space under PASID 7, with one read-only page; the device reads it.
const b = bench({ detectStaleUse: true })
const { unit } = b.machine
const space = b.bind(7)
space.map(0x40_0000n, b.page('hello'), { writable: false })
b.dmaRead(0x40_0000n, { pasid: 7 })

// 2. A write is refused. The fault keeps everything that the unit read on the way to it.
b.dmaWrite(0x40_0000n, 'HELLO', { pasid: 7 })
console.log(explain(unit.lastFault!))

// 3. The same as data. A PASID that nobody bound:
b.dmaRead(0x40_0000n, { pasid: 8 })
const { title, cure } = explanation(unit.lastFault!)
console.log(`\n${title}\n${cure}`)

// 4. Where does an address lead? Asking makes no request, sets no flag and caches nothing.
const { nodes, output } = walkTree(b.machine, { bdf: '0000:01:00.0', pasid: 7, iova: 0x40_0010n })
const [name] = nodes[3]!.text.split(' at ')
const type = nodes[3]!.fields!.find(f => f.name === 'PGTT')
console.log(`\n${name}: ${type!.doc} ${type!.value}, leads somewhere: ${output !== undefined}`)

// 5. The guest takes the page away and tells nobody. The device goes on reading what is no longer there.
space.unmap(0x40_0000n)
b.dmaRead(0x40_0000n, { pasid: 7 })
const [stale] = b.machine.staleUses
console.log(`\n${stale!.cache}, ${stale!.changes.map(c => c.entry)}\n${stale!.missing}`)

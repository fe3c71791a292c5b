import type { ErrnoError } from 'vfio-emu'
import { bench } from 'vfio-emu/testing'

// 1. A bench is a small machine: VT-d, two devices with 20-bit PASIDs, each in a group of its own.
const b = bench()

// 2. A process, a nesting container with the first device's group, a PASID, a guest's table bound to it.
const c = b.process().nesting()
const id = c.alloc(1, 100)
c.bind({ hpasid: id, gpgd: 0x1000n })
console.log(`PASID ${id} is bound; ${b.holdings().bindings} binding`)

// 3. Every member that a call does not name has a value that the call takes. Refusals are the kernel's.
function refusal(call: () => unknown): string {
  try {
    return `success, ${call()}`
  } catch (error) {
    return (error as ErrnoError).message
  }
}
console.log(refusal(() => c.bind(id)))
console.log(refusal(() => c.bind({ hpasid: id + 1 })))
console.log(refusal(() => c.bind({ hpasid: 0x1_0000_0001n })))

// 4. An address space above that: tables written, PASIDs bound, requests made by the device.
const space = b.bind(7)
space.map(0x40_0000n, b.page('hello'))
console.log(b.dmaRead(0x40_0000n, { pasid: 7 }))
space.free()
console.log(b.dmaRead(0x40_0000n, { pasid: 7 }))

// 5. When everybody has gone, nothing may be left: an Error here would name what is.
b.check()
console.log('nothing is left')

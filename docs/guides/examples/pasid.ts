import { bench } from 'vfio-emu/testing'

// 1. A bench is a small machine: VT-d, two devices with 20-bit PASIDs, each in a group of its own.
const calls = bench()

// 2. A process, a nesting container with the first device's group, a PASID, a guest's table bound to it.
const c = calls.process().nesting()
const id = c.alloc(1, 100)
c.bind({ hpasid: id, gpgd: 0x1000n })
console.log(`PASID ${id}: ${calls.holdings().bindings} binding`)

// 3. A member that a call does not name has a value that the call takes. Refusals are the kernel's.
const refusal = (call: () => unknown): string => {
  try {
    return `success: ${call()}`
  } catch (error) {
    return (error as Error).message
  }
}
console.log(refusal(() => c.bind(id)))
console.log(refusal(() => c.bind(id + 1)))
console.log(refusal(() => c.bind({ hpasid: 0x1_0000_0001n })))
console.log(refusal(() => c.unbind({ hpasid: 0x1_0000_0001n })))

// 4. One level up: a guest writes tables, the calls are made for you, and a device issues requests.
const spaces = bench()
const space = spaces.bind(7)
space.map(0x40_0000n, spaces.page('hello'))
const read = (pasid?: number): string => {
  const outcome = spaces.dmaRead(0x40_0000n, pasid === undefined ? {} : { pasid })
  return 'text' in outcome ? outcome.text : `${outcome.fault}, PASID ${outcome.pasid}`
}
console.log(read(7))
console.log(read(8))
console.log(read())
space.free()
console.log(read(7))

// 5. When everybody has gone nothing may be left; an Error here would name what is.
for (const b of [calls, spaces]) b.check()

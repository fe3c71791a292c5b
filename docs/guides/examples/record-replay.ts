import { formatHistory, parseHistory } from 'vfio-emu'
import { bench } from 'vfio-emu/testing'

// 1. A machine that keeps what comes to it. A process binds a guest's table to a PASID.
const b = bench({ record: true })
const program = b.process()
const container = program.nesting()
const id = container.alloc(1, 100)
container.bind({ hpasid: id, gpgd: 0x1000n })

// 2. The machine as a file: a line for everything that came from outside, and what it answered.
const saved = b.machine.save()
const text = formatHistory(saved)
console.log(`${saved.inputs.length} inputs; PASID ${id} held, ${b.holdings().bindings} binding`)

// 3. Two machines that go on from there, each its own way.
const fork = () => {
  const other = bench()
  other.machine.restore(parseHistory(text))
  const { pid } = program.sys.process
  return { other, sys: other.machine.process(pid)! }
}
const free = fork()
const dead = fork()
dead.sys.exit()
dead.other.settle()
const held = (on: typeof b) => `${on.holdings().pasids} PASID, ${on.holdings().bindings} binding`
console.log(`restored: ${held(free.other)}; after exit: ${held(dead.other)}`)

// 4. The same state, to the last bit of memory.
console.log(free.other.machine.digest() === b.machine.digest())

// 5. What does not fit says so. This machine has other devices; that file was changed.
const refusal = (call: () => unknown): string => {
  try {
    return `success: ${call()}`
  } catch (error) {
    return (error as Error).message.split(/[:,] /).slice(0, 3).join(', ')
  }
}
console.log(refusal(() => bench({ profile: 'V7' }).machine.restore(saved)))
const changed = text.replace('"answer":"ok 0"', '"answer":"EBUSY"')
console.log(refusal(() => bench().machine.restore(parseHistory(changed))))

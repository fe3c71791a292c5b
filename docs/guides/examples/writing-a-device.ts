import { createMachine, le16, le32, le64 } from 'vfio-emu'
import { bank, bits, defineDevice, flag, iova, msix, r32, r64, u64 } from 'vfio-emu/device'

// A device that counts the zero bytes of a buffer.
const zeroCounter = defineDevice({
  name: 'zero-counter',
  identity: { vendorId: 0x1234, deviceId: 0x2e80, classCode: 0x12_0000, revision: 1 },
  capabilities: [msix({ vectors: 1, bar: 2 })],

  bar0: bank('zero-counter', {
    ADDRESS: r64(0x00, '1', { IOVA: u64(63, 0, 'rw', 'where the buffer is') }),
    LENGTH: r32(0x08, '2', { BYTES: bits(15, 0, 'rw', 'its bytes') }),
    START: r32(0x0c, '3', { GO: flag(0, 'wo', 'begin') }),
    STATUS: r32(0x10, '4', { FAULT: flag(1, 'rw1c', 'refused'), DONE: flag(0, 'rw1c', 'counted') }),
    ZEROES: r32(0x14, '5', { COUNT: bits(15, 0, 'ro', 'the answer') }),
  }),

  create(port, regs) {
    function count() {
      const data = new Uint8Array(regs.LENGTH.BYTES)
      const result = port.dma.read(iova(regs.ADDRESS.IOVA), data)
      regs.STATUS.FAULT = !result.ok
      regs.ZEROES.COUNT = result.ok ? data.filter(byte => byte === 0).length : 0
      regs.STATUS.DONE = true
      port.interrupt(0)
    }
    return {
      onWrite: {
        START: ({ GO }) => {
          if (GO) port.later(count)
        },
      },
    }
  },
})

// Put it into a machine and drive it as a host driver would: through memory-mapped registers.
const machine = createMachine({ devices: [{ at: '0000:01:00.0', model: zeroCounter }] })
const fn = machine.function('0000:01:00.0')
const bar0 = fn.bars[0]!.address()
const { ADDRESS, LENGTH, START, STATUS, ZEROES } = zeroCounter.bar0
const read = (r: { offset: number }) => Number(machine.memory.load(bar0 + r.offset, 4))

machine.memory.write(bar0 + ADDRESS.offset, le64(0x8000_0000n))
machine.memory.write(bar0 + LENGTH.offset, le32(100))

// Bus mastering is off: the device's request does not leave the function.
machine.memory.write(bar0 + START.offset, le32(1))
machine.settle()
console.log(`status ${read(STATUS)}`)

// With mastering on it does, and the IOMMU refuses it: nobody mapped that address.
fn.config.write(0x04, 2, 0x0006)
machine.memory.write(bar0 + STATUS.offset, le16(3))
machine.memory.write(bar0 + START.offset, le32(1))
machine.settle()
console.log(`status ${read(STATUS)}, zeroes ${read(ZEROES)}, ${machine.unit.lastFault?.name}`)

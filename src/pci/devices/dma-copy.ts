/**
 * dma-copy: on START, reads LEN bytes at SRC and writes them at DST, under one
 * PASID or none. The smallest device that exercises the whole path.
 */
import { iova, pasid } from '../../base/addr.js'
import { bank, bits, flag, r32, r64, u64 } from '../../base/fields.js'
import { ats, defineDevice, msix, pasidCapability } from '../device-model.js'

export const dmaCopy = defineDevice({
  name: 'dma-copy',
  identity: { vendorId: 0x1234, deviceId: 0x0d0c, classCode: 0x088000, revision: 1 },
  capabilities: [msix({ vectors: 1, bar: 2 }), ats(), pasidCapability({ width: 20 })],

  // biome-ignore format: table
  bar0: bank('dma-copy', {
    SRC:    r64(0x00, '2.1', { ADDR: u64(63, 0, 'rw', 'IOVA to read from') }),
    DST:    r64(0x08, '2.2', { ADDR: u64(63, 0, 'rw', 'IOVA to write to') }),
    LEN:    r32(0x10, '2.3', { BYTES: bits(15, 0, 'rw', 'bytes to copy') }),
    PASID:  r32(0x14, '2.4', { EN: flag(31, 'rw', 'tag requests'), ID: bits(19, 0, 'rw', 'with this PASID') }),
    CTRL:   r32(0x18, '2.5', { START: flag(0, 'wo', 'begin a copy') }),
    STATUS: r32(0x1c, '2.6', { FAULT: flag(1, 'rw1c', 'a request was refused'), DONE: flag(0, 'rw1c', 'copy ended') }),
  }),

  create(port, regs) {
    let started = 0

    function start() {
      started++
      port.later(copy)
    }
    function copy() {
      started--
      const tag = { pasid: regs.PASID.EN ? pasid(regs.PASID.ID) : undefined }
      const data = new Uint8Array(regs.LEN.BYTES)

      let result = port.dma.read(iova(regs.SRC.ADDR), data, tag)
      if (result.ok) result = port.dma.write(iova(regs.DST.ADDR), data, tag)

      regs.STATUS.FAULT = !result.ok
      regs.STATUS.DONE = true
      port.interrupt(0)
    }
    return {
      onWrite: {
        CTRL: ({ START }) => {
          if (START) start()
        },
      },
      reset() {
        started = 0
      },
      save: () => started,
      restore(copies) {
        started = 0
        if (!(Number(copies) <= 0xffff)) throw new Error('dma-copy: not its state')
        while (started < Number(copies)) start()
      },
    }
  },
})

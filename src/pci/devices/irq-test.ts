/**
 * irq-test: interrupts of every kind, raised by register. MESSAGE sends a vector of MSI or MSI-X; CTRL
 * asserts the interrupt pin, LEVEL shows it, and a one written there drops it, as a status register has it.
 */
import { bank, bits, flag, r32 } from '../../base/fields.js'
import { defineDevice, msi, msix } from '../device-model.js'

export const irqTest = defineDevice({
  name: 'irq-test',
  identity: { vendorId: 0x1234, deviceId: 0x0d1e, classCode: 0x088000, revision: 1 },
  intx: { pin: 1 },
  capabilities: [msi({ vectors: 8 }), msix({ vectors: 8, bar: 2 })],

  // biome-ignore format: table
  bar0: bank('irq-test', {
    MESSAGE: r32(0x00, '1', { VECTOR: bits(4, 0, 'wo', 'the vector to send, by MSI or MSI-X') }),
    LEVEL:   r32(0x04, '2', { PENDING: flag(0, 'rw1c', 'the pin is asserted') }),
    CTRL:    r32(0x08, '3', { RAISE: flag(0, 'wo', 'assert the pin') }),
  }),

  create: (port, regs) => ({
    onWrite: {
      MESSAGE: ({ VECTOR }) => port.interrupt(VECTOR),
      LEVEL: () => port.intx(regs.LEVEL.PENDING),
      CTRL: ({ RAISE }) => {
        if (RAISE) regs.LEVEL.PENDING = true
        port.intx(regs.LEVEL.PENDING)
      },
    },
  }),
})

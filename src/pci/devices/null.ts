/** null: a function that answers its registers with zero and does nothing; for tests of everything around a device. */
import { bank, bits, r32 } from '../../base/fields.js'
import { defineDevice } from '../device-model.js'

export const nullDevice = defineDevice({
  name: 'null',
  identity: { vendorId: 0x1234, deviceId: 0x0000, classCode: 0x00ff00 },
  bar0: bank('null', { ZERO: r32(0x00, '1.1', { VALUE: bits(31, 0, 'ro', 'zero') }) }),
  create: () => ({}),
})

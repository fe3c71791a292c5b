// Commands of an ITS as they lie in its queue: 32 bytes each (IHI 0069H 5.3). What they do is its.ts.

import { bits, flag, layout, page } from '../../base/fields.js'

/** Bytes of a command. */
export const COMMAND_SIZE = 32

/** Command numbers, IHI 0069H 5.3. */
export const ITS_COMMAND = {
  MOVI: 0x01,
  INT: 0x03,
  CLEAR: 0x04,
  SYNC: 0x05,
  MAPD: 0x08,
  MAPC: 0x09,
  MAPTI: 0x0a,
  MAPI: 0x0b,
  INV: 0x0c,
  INVALL: 0x0d,
  MOVALL: 0x0e,
  DISCARD: 0x0f,
} as const

/** Every command: fields that one does not have are ignored. MAPD's Size shares bits with the event id. */
// biome-ignore format: table
export const itsCommand = layout('ITS command', COMMAND_SIZE, {
  COMMAND:  bits(7, 0),
  DEVICE:   bits(63, 32, 'device id'),
  EVENT:    bits(95, 64, 'event id; MAPD: bits 4:0 bits of an event id less one'),
  INTID:    bits(127, 96, 'MAPTI: the LPI'),
  ICID:     bits(143, 128, 'collection'),
  RDBASE:   bits(175, 144, 'MAPC, MOVALL: number of a processor; with ICID, MAPD\'s address'),
  V:        flag(191, 'MAPD, MAPC: maps; clear: unmaps'),
  RDBASE2:  bits(239, 208, 'MOVALL: where to'),
})

/** MAPD's view of the third doubleword. */
export const mapdCommand = layout('ITS MAPD', COMMAND_SIZE, {
  SIZE: bits(68, 64, 'bits of an event id less one'),
  ITT: page(179, 136, 'interrupt translation table, 256-byte aligned'),
})

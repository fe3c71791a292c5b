// VFIO_DEVICE_FEATURE: the checks every feature shares, and what each feature a profile knows does. VF tokens need a
// physical function with SR-IOV among the drivers; low power is never offered: no model has a state below D0 that
// VFIO could enter by itself. Next: migration.ts, dma-logging.ts. uapi linux/vfio.h, vfio_device_feature.
import { hex } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import type { AnyStruct } from '../base/struct.js'
import type { PciConfig } from '../iommu/pci-config.js'
import { PCI_COMMAND, PCI_COMMAND_MASTER } from '../pci/ids.js'
import type { Process } from '../sys/process.js'
import type { DmaLogging } from './dma-logging.js'
import { MIGRATION_FLAGS, type Migration } from './migration.js'
import type { Rules } from './profiles.js'
import * as uapi from './uapi/vfio.js'
import {
  VFIO_DEVICE_FEATURE_GET as GET,
  VFIO_DEVICE_FEATURE_MASK as INDEX,
  VFIO_DEVICE_FEATURE_PROBE as PROBE,
  VFIO_DEVICE_FEATURE_SET as SET,
  vfio_device_feature,
} from './uapi/vfio.js'

/** The device that is asked. Without `migration` its model cannot be saved. */
export interface FeatureTarget {
  readonly rules: Rules
  readonly config: PciConfig
  readonly bdf: number
  readonly migration: Migration | undefined
  readonly logging: DmaLogging
}

/** One feature: directions, payload, and what it does with the payload at `arg`. */
interface Feature {
  readonly ways: number
  readonly payload?: AnyStruct
  /** Undefined: every device has it. */
  readonly has?: (target: FeatureTarget) => boolean
  readonly run: (target: FeatureTarget, arg: number, caller: Process, set: boolean) => void
}

const CALL = 'VFIO_DEVICE_FEATURE'
const HEADER = vfio_device_feature.size
const KNOWN = INDEX | GET | SET | PROBE

const invalid = (what: string) => new ErrnoError('EINVAL', `${CALL}: ${what}`)
const unreadable = () => new ErrnoError('EFAULT', `${CALL}: unreadable`)
const unwritable = () => new ErrnoError('EFAULT', `${CALL}: not writable`)
const migrates = ({ migration }: FeatureTarget) => migration !== undefined

// biome-ignore format: table
const FEATURES = new Map<number, Feature>([
  [uapi.VFIO_DEVICE_FEATURE_MIGRATION,          { ways: GET,       payload: uapi.vfio_device_feature_migration,           has: migrates, run: migrationFlags }],
  [uapi.VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,   { ways: GET | SET, payload: uapi.vfio_device_feature_mig_state,           has: migrates, run: deviceState    }],
  [uapi.VFIO_DEVICE_FEATURE_DMA_LOGGING_START,  { ways: SET,       payload: uapi.vfio_device_feature_dma_logging_control, run: (t, arg, c) => t.logging.start(c.memory, arg)  }],
  [uapi.VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,   { ways: SET,                                                              run: t => t.logging.stop()                          }],
  [uapi.VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, { ways: GET,       payload: uapi.vfio_device_feature_dma_logging_report,  run: (t, arg, c) => t.logging.report(c.memory, arg) }],
  [uapi.VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,      { ways: GET,       payload: uapi.vfio_device_feature_mig_data_size,       has: migrates, run: dataSize       }],
  [uapi.VFIO_DEVICE_FEATURE_BUS_MASTER,         { ways: SET,       payload: uapi.vfio_device_feature_bus_master,          run: busMaster }],
])

/** Answers FEATURE at `arg` of the caller. */
export function deviceFeature(target: FeatureTarget, arg: number, caller: Process): number {
  const bytes = new Uint8Array(HEADER)
  if (!caller.memory.copyIn(arg, bytes)) throw unreadable()
  const { argsz, flags } = vfio_device_feature.at(bytes)
  const ways = flags & (GET | SET)
  const probe = (flags & PROBE) !== 0
  if (argsz < HEADER) throw invalid(`argsz ${argsz} < ${HEADER}`)
  if (flags & ~KNOWN) throw invalid(`flags ${hex(flags)}`)
  if (ways === (GET | SET) && !probe) throw invalid('GET and SET together')
  const index = flags & INDEX
  const feature = target.rules.features.includes(index) ? FEATURES.get(index) : undefined
  if (feature === undefined || feature.has?.(target) === false)
    throw new ErrnoError('ENOTTY', `${CALL}: feature ${index}`)
  if (ways & ~feature.ways) throw invalid(`feature ${index} does not go that way`)
  if (probe) return 0
  if (ways === 0) throw invalid(`feature ${index}: neither GET nor SET`)
  const needed = HEADER + (feature.payload?.size ?? 0)
  if (argsz < needed) throw invalid(`argsz ${argsz} < ${needed}`)
  feature.run(target, arg + HEADER, caller, ways === SET)
  return 0
}

function migrationFlags(_target: FeatureTarget, arg: number, { memory }: Process): void {
  const answer = uapi.vfio_device_feature_migration({ flags: BigInt(MIGRATION_FLAGS) })
  if (!memory.copyOut(arg, answer.bytes)) throw unwritable()
}

function dataSize({ migration }: FeatureTarget, arg: number, { memory }: Process): void {
  const stop_copy_length = BigInt(migration!.size)
  const answer = uapi.vfio_device_feature_mig_data_size({ stop_copy_length })
  if (!memory.copyOut(arg, answer.bytes)) throw unwritable()
}

function deviceState(target: FeatureTarget, arg: number, caller: Process, set: boolean): void {
  const { memory, fds } = caller
  const migration = target.migration!
  const state = uapi.vfio_device_feature_mig_state()
  if (!memory.copyIn(arg, state.bytes)) throw unreadable()
  const to = state.device_state
  state.data_fd = -1
  if (!set) state.device_state = migration.state
  // A refused change, too, answers that there is no descriptor; so this comes first.
  if (!memory.copyOut(arg, state.bytes)) throw unwritable()
  if (!set) return
  const fd = migration.go(to, caller)
  if (fd < 0) return
  state.data_fd = fd
  if (memory.copyOut(arg, state.bytes)) return
  fds.close(fd)
  throw unwritable()
}

function busMaster({ config, bdf }: FeatureTarget, arg: number, { memory }: Process): void {
  const payload = uapi.vfio_device_feature_bus_master()
  if (!memory.copyIn(arg, payload.bytes)) throw unreadable()
  const command = config.read(bdf, PCI_COMMAND, 2)
  switch (payload.op) {
    case uapi.VFIO_DEVICE_FEATURE_CLEAR_MASTER:
      config.write(bdf, PCI_COMMAND, 2, command & ~PCI_COMMAND_MASTER)
      return
    case uapi.VFIO_DEVICE_FEATURE_SET_MASTER:
      config.write(bdf, PCI_COMMAND, 2, command | PCI_COMMAND_MASTER)
      return
    default:
      throw invalid('bus master operation')
  }
}

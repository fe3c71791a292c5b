// Commands on files and processes: open, close, containers, groups, devices, fork, exit, the clock.

import fc from 'fast-check'
import { s32 } from '../../src/sys/sys.js'
import {
  VFIO_DEVICE_RESET,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  VFIO_SET_IOMMU,
} from '../../src/uapi.js'
import * as m from '../model/files.js'
import { OK } from '../model/outcome.js'
import {
  type Device,
  ENTRY,
  type Group,
  GUEST_PAGE,
  PAGES,
  type Page,
  type Process,
  type State,
} from '../model/state.js'
import type { Rig } from '../rig.js'
import { descriptor, expect, type FuzzCommand, process, settleAll, step } from './step.js'

const MAX_PROCESSES = 4
const MAX_FDS = 12
const { WRITE, FRAME } = ENTRY
/** The file descriptor of a device has configuration space here; the Command register is at 4. */
const CONFIG = 7
const COMMAND = 4
const MEMORY = 2
const MASTER = 4

/** A new process's memory: two tables of four levels that lead to the last four pages, in opposite orders. */
function firstPages(s: State, process: number): Page[] {
  const leads = (to: number) => new Map([[0, to * FRAME + WRITE]])
  const last = (pages: readonly number[]) =>
    new Map(pages.map((page, i) => [GUEST_PAGE + i, page * FRAME + WRITE]))
  const tables = [leads(1), leads(2), leads(3), last([8, 9, 10, 11])]
  tables.push(leads(5), leads(6), leads(7), last([11, 10, 9, 8]))
  return Array.from({ length: PAGES }, (_, i) => m.makePage(s, (process + 1) * 100 + i, tables[i]))
}

const roomForProcess = (s: Readonly<State>) =>
  s.processes.filter(p => p.alive).length < MAX_PROCESSES

function withRoom(s: Readonly<State>, of: number): Process | undefined {
  const p = process(s, of)
  return p && p.fds.size < MAX_FDS - 2 ? p : undefined
}

const group = (s: Readonly<State>, n: number): Group => s.groups[n % s.groups.length]!

// ---- what several commands do ----

function openContainer(s: State, rig: Rig, p: Process): number {
  const fd = rig.call(p.id, 'open("/dev/vfio/vfio")', sys => sys.open('/dev/vfio/vfio'))
  expect(fd, OK)
  m.install(p, fd as number, { kind: 'container', container: m.container(s) })
  return fd as number
}

function openGroup(rig: Rig, p: Process, g: Group): number | undefined {
  const path = rig.groups[g.devices[0]!.index]!
  const allowed = m.mayOpenGroup(g)
  const fd = rig.call(p.id, `open("${path}")`, sys => sys.open(path))
  if (!expect(fd, allowed)) return undefined
  g.open = true
  m.install(p, fd as number, { kind: 'group', group: g })
  return fd as number
}

function setContainer(rig: Rig, p: Process, fd: number, container: number): void {
  const g = p.fds.get(fd)!.group!
  const file = p.fds.get(container)
  const allowed = m.maySetContainer(g, file)
  const name = `SET_CONTAINER, ${container}`
  const result = rig.ioctl(p.id, fd, name, VFIO_GROUP_SET_CONTAINER, s32(container))
  if (expect(result, allowed)) m.setContainer(g, file!.container!)
}

function setIommu(s: State, rig: Rig, p: Process, fd: number, type: number): void {
  const c = p.fds.get(fd)!.container!
  const allowed = m.maySetIommu(s, c, type, p)
  const result = rig.ioctl(p.id, fd, `SET_IOMMU, ${type}`, VFIO_SET_IOMMU, type)
  if (expect(result, allowed)) m.setIommu(s, c, type, p)
}

/** Memory decoding and bus mastering are switched on, as every driver does next. */
function openDeviceOf(rig: Rig, p: Process, fd: number, device: Device): void {
  const g = p.fds.get(fd)!.group!
  const { name } = device.facts
  const allowed = m.mayOpenDevice(g, device)
  const result = rig.ioctl(p.id, fd, `GET_DEVICE_FD, "${name}"`, VFIO_GROUP_GET_DEVICE_FD, name)
  if (!expect(result, allowed)) return
  m.openDevice(g, device, rig.delivers)
  m.install(p, result as number, { kind: 'device', device })
  rig.poke(p.id, result as number, CONFIG, COMMAND, Uint8Array.of(MEMORY | MASTER, 0))
  device.master = true
}

// ---- commands ----

const spawn = () => step('spawn()', s => roomForProcess(s) || undefined, startProcess)

/** Starts a process, in the model and in the machine. */
export function startProcess(s: State, rig: Rig): void {
  rig.spawn(m.spawn(s, firstPages(s, s.processes.length)).pages)
}

const fork = (of: number) =>
  step(
    `fork(${of})`,
    s => (roomForProcess(s) ? process(s, of) : undefined),
    (s, rig, parent) => rig.fork(parent.id, m.fork(s, parent).pages),
  )

const exit = (of: number) =>
  step(
    `exit(${of})`,
    s => process(s, of),
    (s, rig, p) => {
      expect(
        rig.call(p.id, 'exit()', sys => sys.exit()),
        OK,
      )
      m.exit(s, p)
    },
  )

/** Container, a group that nobody has, and IOMMU type in one go, and the group's devices: most programs begin so. */
const begin = (of: number, n: number, type: number, devices: number) =>
  step(
    `begin(${of}, ${n}, type ${type}, ${devices} devices)`,
    s => withRoom(s, of),
    (s, rig, p) => {
      const unused = s.groups.filter(g => !g.open && g.users === 0)
      const g = unused.length > 0 ? unused[n % unused.length]! : group(s, n)
      const container = openContainer(s, rig, p)
      const fd = openGroup(rig, p, g)
      if (fd === undefined) return
      setContainer(rig, p, fd, container)
      setIommu(s, rig, p, container, type)
      for (const d of g.devices.slice(0, devices)) openDeviceOf(rig, p, fd, d)
    },
  )

const close = (of: number, n: number) =>
  step(
    `close(${of}, ${n})`,
    s => {
      const p = process(s, of)
      const fds = [...(p?.fds.keys() ?? [])]
      return p && fds.length > 0 ? { p, fd: fds[n % fds.length]! } : undefined
    },
    (s, rig, { p, fd }) => {
      expect(
        rig.call(p.id, `close(${fd})`, sys => sys.close(fd)),
        OK,
      )
      m.close(s, p, fd)
    },
  )

/** Mostly with a container of the process; now and then with any number. */
const setContainerOf = (of: number, n: number, container: number) =>
  step(
    `setContainer(${of}, ${n}, ${container})`,
    s => descriptor(s, of, n, 'group'),
    (s, rig, f) => {
      const good = container < 6 ? descriptor(s, of, container, 'container') : undefined
      setContainer(rig, f.process, f.fd, good?.fd ?? container)
    },
  )

const setIommuOf = (of: number, n: number, type: number) =>
  step(
    `setIommu(${of}, ${n}, ${type})`,
    s => descriptor(s, of, n, 'container'),
    (s, rig, f) => setIommu(s, rig, f.process, f.fd, type),
  )

const unsetContainer = (of: number, n: number) =>
  step(
    `unsetContainer(${of}, ${n})`,
    s => descriptor(s, of, n, 'group'),
    (s, rig, { process: p, fd, file }) => {
      const allowed = m.mayUnset(file.group!)
      const result = rig.ioctl(p.id, fd, 'UNSET_CONTAINER', VFIO_GROUP_UNSET_CONTAINER)
      if (expect(result, allowed)) m.leave(s, file.group!)
    },
  )

/** Mostly a device of the group. */
const openDevice = (of: number, n: number, which: number) =>
  step(
    `openDevice(${of}, ${n}, ${which})`,
    s => {
      const f = descriptor(s, of, n, 'group')
      return f && f.process.fds.size < MAX_FDS ? f : undefined
    },
    (s, rig, { process: p, fd, file }) => {
      const { devices } = file.group!
      const device = which < 8 ? devices[which % devices.length]! : s.devices[0]!
      openDeviceOf(rig, p, fd, device)
    },
  )

const busMaster = (of: number, n: number, on: boolean) =>
  step(
    `busMaster(${of}, ${n}, ${on})`,
    s => descriptor(s, of, n, 'device'),
    (_, rig, { process: p, fd, file }) => {
      rig.say(`process ${p.id}: bus mastering through ${fd} ${on ? 'on' : 'off'}`)
      rig.poke(p.id, fd, CONFIG, COMMAND, Uint8Array.of(on ? MEMORY | MASTER : MEMORY, 0))
      file.device!.master = on
    },
  )

const reset = (of: number, n: number) =>
  step(
    `reset(${of}, ${n})`,
    s => descriptor(s, of, n, 'device'),
    (_, rig, { process: p, fd, file }) => {
      expect(rig.ioctl(p.id, fd, 'DEVICE_RESET', VFIO_DEVICE_RESET), OK)
      m.reset(file.device!)
    },
  )

/** Steps the clock; 0 lets everything run that is due. */
const clock = (steps: number) => {
  const name = steps === 0 ? 'settle()' : `steps(${steps})`
  return step(
    name,
    () => true,
    (s, rig) => {
      rig.say(name)
      if (steps === 0) settleAll(s, rig)
      else for (let i = 0; i < steps; i++) rig.machine.step()
    },
  )
}

const of = fc.nat({ max: 3 })
const nth = fc.nat({ max: 3 })
const { tuple, constantFrom } = fc

/** Commands, and how often each is drawn. */
export const fileCommands: { weight: number; arbitrary: fc.Arbitrary<FuzzCommand> }[] = [
  { weight: 2, arbitrary: fc.constant(spawn()) },
  { weight: 1, arbitrary: of.map(fork) },
  { weight: 1, arbitrary: of.map(exit) },
  {
    weight: 12,
    arbitrary: tuple(of, nth, constantFrom(6, 6, 6, 6, 3, 1), constantFrom(2, 1, 0)).map(a =>
      begin(...a),
    ),
  },
  {
    weight: 1,
    arbitrary: of.map(n =>
      step(
        `openContainer(${n})`,
        s => withRoom(s, n),
        (s, rig, p) => void openContainer(s, rig, p),
      ),
    ),
  },
  {
    weight: 1,
    arbitrary: tuple(of, nth).map(([n, g]) =>
      step(
        `openGroup(${n}, ${g})`,
        s => withRoom(s, n),
        (s, rig, p) => void openGroup(rig, p, group(s, g)),
      ),
    ),
  },
  { weight: 2, arbitrary: tuple(of, nth).map(a => close(...a)) },
  { weight: 2, arbitrary: tuple(of, nth, fc.nat({ max: 7 })).map(a => setContainerOf(...a)) },
  { weight: 1, arbitrary: tuple(of, nth, constantFrom(6, 3, 1, 2)).map(a => setIommuOf(...a)) },
  { weight: 1, arbitrary: tuple(of, nth).map(a => unsetContainer(...a)) },
  { weight: 5, arbitrary: tuple(of, nth, fc.nat({ max: 8 })).map(a => openDevice(...a)) },
  { weight: 1, arbitrary: tuple(of, nth, fc.boolean()).map(a => busMaster(...a)) },
  { weight: 1, arbitrary: tuple(of, nth).map(a => reset(...a)) },
  { weight: 3, arbitrary: constantFrom(0, 0, 1, 3).map(clock) },
]

// `vfio-emu run --guest sev`: a guest whose memory is encrypted, launched twice, as the 2016 proposal had it with a
// [sev-launch] file and as KVM has it today. It shares pages with a device by bounce buffers, and shows what happens
// to DMA that goes past them; beside what it sees stands what the host sees.

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describeConfidentialDma } from '../confidential-dma.js'
import type { SevEdition } from '../cpu/kvm/uapi/sev-codes.js'
import { createMachine, type Machine } from '../machine.js'
import { dmaCopy } from '../pci/devices/dma-copy.js'
import { parseOption } from '../vmm/sev/config-file.js'
import { GUEST_TYPE, MachineSev } from '../vmm/sev/init.js'
import { SevLaunchError } from '../vmm/sev/launch.js'
import { type LaunchConfig, parseLaunchConfig } from '../vmm/sev/launch-config.js'
import { SevVmm } from '../vmm/sev/machine.js'
import { infoSev } from '../vmm/sev/monitor.js'
import { objectsOf, objectsOfFile, resolveGuest } from '../vmm/sev/objects.js'
import { type OptionSet, SevConfigError } from '../vmm/sev/options.js'
import { readImage } from './guest.js'
import { nodeCrypto } from './node-crypto.js'
import { UsageError } from './output.js'
import type { Scenario, ScenarioOptions } from './scenarios.js'

const IMAGE = fileURLToPath(new URL('../../guests/built/sev-x86_64.elf', import.meta.url))
const AT = '0000:01:00.0'
const RAM = 16 * 2 ** 20

/** The proposal's own example, read from a file, but for policies that say whether the host may debug: bit 0, which changed its sense. */
const launchFile = (policy: string): LaunchConfig =>
  parseLaunchConfig(
    `[sev-launch]
flags = "00000000"
policy = "${policy}"
dh_pub_qx = "0123456789abcdef0123456789abcdef"
dh_pub_qy = "0123456789abcdef0123456789abcdef"
nonce = "0123456789abcdef"
vcpu_count = "1"
vcpu_length = "30"
vcpu_mask = "00ab"
`,
    'sev.conf',
  )

interface Launch {
  readonly edition: SevEdition
  readonly heading: string
  readonly config: LaunchConfig
}

// biome-ignore format: table
const LAUNCHES: readonly Launch[] = [
  { edition: '2016',    heading: 'launched by KVM_SEV_ISSUE_CMD (2016), policy: debugging allowed', config: launchFile('0x05') },
  { edition: 'current', heading: 'launched by KVM_MEMORY_ENCRYPT_OP, policy: debugging forbidden',  config: launchFile('0x01') },
]

const LEGEND = [
  'Memory holds what the bus would show. "host" is that; "debug" is what DBG_DECRYPT makes of it, if the policy lets it.',
]

/** The scenario `sev`. */
export const sevScenario: Scenario = {
  name: 'sev',
  title: 'an encrypted guest, its bounce buffers, and DMA that goes past them',
  run(options) {
    const image = readImage(IMAGE)
    const launches = options.sev ? [launchOf(options.sev)] : LAUNCHES
    const ends = launches.map(launch => runLaunch(launch, image, options))
    const good = ends.every(end => end)
    const rows = launches.map(({ edition }, i) => [
      `guest launched by the ${edition} interface`,
      ends[i] ? 'exited 0, nothing leaked' : 'failed',
    ])
    const verdict = good ? 'verified by the guest: the host saw ciphertext only' : 'failed'
    options.tell.end(rows, verdict, good)
    return good
  },
}

/** The launch that the user's options ask for. UsageError when they ask for none, or for one that cannot be. */
function launchOf({ options, objects, strict }: NonNullable<ScenarioOptions['sev']>): Launch {
  try {
    const asked = options === undefined ? byObjects(objects) : byFile(options, strict)
    if (asked.received)
      throw new UsageError('this image does not arrive encrypted: launch it (type=unencrypted)')
    const what = options ?? 'objects'
    const heading = `launched by KVM_SEV_ISSUE_CMD (2016), ${what}`
    return { edition: '2016', heading, config: asked.config }
  } catch (error) {
    if (error instanceof SevConfigError) throw new UsageError(error.message)
    throw error
  }
}

interface Asked {
  readonly config: LaunchConfig
  readonly received: boolean
}

/** One object, or with `@FILE` those of a file's `[object "id"]` groups. */
function readObjects(object: string): readonly OptionSet[] {
  if (!object.startsWith('@')) return objectsOf([object])
  const path = object.slice(1)
  const text = textOf(path)
  if (text === undefined) throw new UsageError(`--sev-object: ${path} cannot be opened`)
  return objectsOfFile(text, path)
}

/** A file's text; undefined when it cannot be opened. */
function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

function byObjects(objects: readonly string[]): Asked {
  const guest = resolveGuest(objects.flatMap(readObjects))
  if (guest === undefined)
    throw new UsageError('--sev-object: no security-policy names a memory-encryption')
  return { config: guest.config, received: guest.kind === 'receive' }
}

function byFile(options: string, strict: boolean): Asked {
  const sev = new MachineSev()
  const messages: string[] = []
  const failed = sev.init(parseOption(`sev,${options}`), {
    kvm: true,
    readFile: textOf,
    message: text => messages.push(text),
    variant: strict ? 'strict' : 'compatible',
  })
  if (failed) throw new UsageError(messages[0] ?? '--sev needs config=FILE and type=unencrypted')
  const { launch: config, type } = sev.state!
  return { config, received: type === GUEST_TYPE.PRE_ENCRYPTED }
}

function runLaunch(launch: Launch, image: Uint8Array, { tell, monitor }: ScenarioOptions): boolean {
  const machine = createMachine({
    sev: { crypto: nodeCrypto },
    devices: [{ at: AT, model: dmaCopy }],
    detectConfidentialDma: true,
  })
  tell.section(launch.heading, LEGEND)
  const stop = narrate(machine, tell)
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  let good = false
  try {
    const { trace } = machine
    const group = machine.groupOf(AT)
    const { edition, config } = launch
    const common = { sys, trace, ramBytes: RAM, image, group, device: AT }
    const vmm = launched(() => new SevVmm({ ...common, edition, config }))
    try {
      const end = vmm.run()
      good = end.kind === 'exit' && end.code === 0
      if (monitor) {
        const info = vmm.query()
        tell.facts(`info sev (${edition})`, infoSev(info), { 'query-sev': info })
      }
    } finally {
      vmm.close()
      machine.settle()
    }
  } finally {
    stop()
    sys.exit()
    machine.settle()
  }
  return good && Object.values(machine.holdings()).every(n => n === 0)
}

/** What `build` builds. UsageError when the firmware refuses the user's parameters. */
function launched(build: () => SevVmm): SevVmm {
  try {
    return build()
  } catch (error) {
    if (error instanceof SevLaunchError) throw new UsageError(`the launch failed: ${error.message}`)
    throw error
  }
}

/** Tells what happens on a machine; returns what ends it. */
function narrate(machine: Machine, tell: ScenarioOptions['tell']): () => void {
  const { trace, clock } = machine
  const say = (topic: string, text: string, data: object, failed = false) =>
    tell.step({
      at: clock.now,
      topic,
      text,
      data: data as Record<string, unknown>,
      ...(failed && { failed }),
    })
  const spaced = (hex: string) => hex.replace(/../g, byte => `${byte} `).trimEnd()
  const ends = [
    trace.listen('vmm.sev', e => say('sev', e.text, e)),
    trace.listen('guest.console', e => say('guest', e.line, e)),
    trace.listen('vmm.look', e => {
      const page = `0x${e.address.toString(16)}`
      say('host', `page ${page} as it lies in memory: ${spaced(e.raw)}`, e)
      if (e.debug !== e.raw)
        say('debug', `page ${page} as DBG_DECRYPT tells: ${spaced(e.debug)}`, e)
    }),
    trace.listen('dma', e => {
      if (e.failure !== undefined) say('dma', `refused: ${e.failure}`, e, true)
      else if (e.length === 64) {
        const what = e.write ? 'write' : 'read '
        say('dma', `${what} ${e.length} B at host address 0x${e.output.toString(16)}`, e)
      }
    }),
    trace.listen('confidential-dma', e => {
      const text = describeConfidentialDma(e).replaceAll('\n', `\n${' '.repeat(27)}`)
      say('checker', text, e, true)
    }),
  ]
  return () => {
    for (const end of ends) end()
  }
}

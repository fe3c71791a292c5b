// `npm run boot:linux -- IMAGE`: an arm64 Linux, built elsewhere, on the board of the kvm-unit-tests: its console, as it comes.
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { runBoard } from './kvm-unit-tests/board.js'
import { runBehindSmmu, SMMU_BOOTARGS } from './linux-smmu.js'

const HELP = `npm run boot:linux -- IMAGE [OPTIONS]
  IMAGE           arch/arm64/boot/Image, with an initramfs in it that ends by switching the power off
  --cpus N        processors (default 1)
  --ram MIB       memory (default 128)
  --append TEXT   command line (default: the console, and with --smmu the SMMU translating strictly)
  --smmu          in the VMM of \`vfio-emu run\` instead, behind its virtual SMMUv3, with two functions; one processor
  --seconds N     virtual seconds after which it is stopped (default 60)
Serial console, GICv3 with ITS, generic timer, PSCI. The exit status is 0 when it switched the power off.`

const BOOTARGS = 'earlycon=pl011,0x9000000 console=ttyAMA0'
/** Images want an address that is a multiple of 2 MiB (Documentation/arch/arm64/booting). */
const LOAD_AT = 0x20_0000

function main(): number {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      cpus: { type: 'string', default: '1' },
      ram: { type: 'string', default: '128' },
      append: { type: 'string' },
      seconds: { type: 'string', default: '60' },
      smmu: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const [cpus, ramMiB, seconds] = [values.cpus, values.ram, values.seconds].map(Number) as [
    number,
    number,
    number,
  ]
  const [path] = positionals
  if (values.help || path === undefined || ![cpus, ramMiB, seconds].every(n => n > 0)) {
    console.log(HELP)
    return values.help ? 0 : 2
  }
  const image = readFileSync(path)
  if (values.smmu) {
    const said = runBehindSmmu(image, values.append ?? SMMU_BOOTARGS, ramMiB, console.log)
    console.log(`ended: ${said}`)
    return said === 'off' ? 0 : 1
  }
  const { end } = runBoard({
    image,
    bootargs: values.append ?? BOOTARGS,
    cpus,
    ramMiB,
    loadAt: LOAD_AT,
    nsPerInstruction: 10,
    onText: character => void process.stdout.write(character),
    limitNs: seconds * 1e9,
  })
  console.log(`ended: ${end}`)
  return end === 'off' ? 0 : 1
}

process.exitCode = main()

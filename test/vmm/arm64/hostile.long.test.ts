// Hostile arm64 guests at random, from seeds: through the whole monitor, and at the virtual SMMUv3 itself.
import { describe, it } from 'vitest'
import { ARM64_MAP, guestBdf } from '../../../src/vmm/arm64/map.js'
import { isLong, often } from '../../support/long.js'
import { xorshift } from '../../support/random.js'
import { image, monitor } from './support.js'
import { cfgiSte, request, STREAM, STREAMS, world } from './world.js'

const SMALL = { ramBytes: 128 * 2 ** 20 }
const SEEDS = isLong ? [1, 2, 3, 4, 5, 6] : [1]
const { ECAM, SMMU, BARS, BAR_WINDOW, CONSOLE } = ARM64_MAP
const config = (n: number) => ECAM + guestBdf(n) * 4096

describe('a hostile guest', () => {
  it.each(SEEDS)(
    'writes random registers, configuration and BARs: the monitor stands, nothing leaks (seed %i)',
    seed => {
      const { vmm, end } = monitor(image, SMALL)
      const random = xorshift(seed)
      const places = [
        SMMU,
        SMMU + 0x1_0000,
        config(0),
        config(1),
        BARS,
        BARS + BAR_WINDOW,
        ECAM,
        CONSOLE + 0x10,
      ]
      for (let i = 0; i < often(1000, 4000); i++) {
        const size = [1, 2, 4, 8][random(4)]!
        const value = (BigInt(random(2 ** 31)) << 33n) ^ BigInt(random(2 ** 31))
        const at = places[random(places.length)]! + (random(0x1000) & -size)
        if (random(3) === 0) vmm.mmioRead(at, size)
        else vmm.mmioWrite(at, size, BigInt.asUintN(8 * size, value))
        if (random(50) === 0) vmm.poll()
      }
      end()
    },
  )

  it.each(SEEDS)(
    'plays the SMMU, its tables and its queues as it likes: nothing breaks, nothing is kept (seed %i)',
    seed => {
      const w = world()
      const draw = xorshift(seed)
      const dword = () => (BigInt(draw(2 ** 32)) << 32n) | BigInt(draw(2 ** 32))
      w.entry()
      w.enable()
      for (let i = 0; i < often(500, 3000); i++) {
        const kind = draw(8)
        if (kind === 0) w.smmu.write(draw(0x100) * 4, draw(2) ? 8 : 4, dword() & 0xffff_ffffn)
        else if (kind === 1) w.put(STREAMS + STREAM * 64, dword(), dword())
        else if (kind === 2) w.command(cfgiSte(), 1n)
        else if (kind === 3)
          w.command((BigInt(STREAM) << 32n) | (dword() & 0xf_ff00n) | BigInt(draw(0x50)), dword())
        else if (kind === 4) w.smmu.stall(request({ prgIndex: draw(64) }))
        else if (kind === 5) w.smmu.pageRequest(request({ prgIndex: draw(64) }))
        else if (kind === 6) {
          // What a driver does to get going again.
          w.set(0x64, Number(w.smmu.read(0x60, 4)))
          w.entry()
          w.enable()
        } else w.smmu.read(draw(0x8000) * 4, 4)
      }
      w.end()
    },
  )
})

// A campaign: one case for each seed of a range, of which a shard runs every N-th. Which cases, and how one is
// reported, is the subject's matter: the model (cases.ts) or raw calls (ioctl/).

/** A case that failed. */
export interface CampaignFailure {
  readonly seed: number
  readonly message: string
  /** What a person needs to understand it and to run it again. */
  readonly report: string
}

/** What is fuzzed. */
export interface Subject {
  readonly name: string
  /** Runs the case of a seed. */
  run(seed: number): { readonly steps: number; readonly failure: CampaignFailure | undefined }
}

/** Which cases. */
export interface CampaignOptions {
  readonly seed: number
  readonly cases: number
  /** This shard, from 1, and how many there are. */
  readonly shard: readonly [number, number]
  /** The campaign ends after this many failures. */
  readonly failures: number
  /** Told of every failure as it is found. */
  readonly failed?: (failure: CampaignFailure) => void
  /** Told after every case. */
  readonly progress?: (soFar: Progress) => void
  /** Milliseconds now, from anywhere. */
  readonly now: () => number
}

/** How far a campaign is. */
export interface Progress {
  readonly done: number
  readonly total: number
  readonly steps: number
  readonly failures: number
  readonly seconds: number
}

/** Cases that held, for reports. */
export interface Block {
  readonly first: number
  readonly last: number
  readonly count: number
  readonly seconds: number
}

/** What came of a campaign. */
export interface CampaignResult {
  readonly name: string
  readonly seed: number
  readonly shard: string
  readonly cases: number
  readonly steps: number
  readonly seconds: number
  readonly blocks: readonly Block[]
  readonly failures: readonly CampaignFailure[]
}

const BLOCK = 1000

/** The seeds of a shard: every N-th of the range, so that shards together run each seed once. */
export function seedsOf({ seed, cases, shard: [index, of] }: CampaignOptions): number[] {
  const seeds: number[] = []
  for (let k = index - 1; k < cases; k += of) seeds.push(seed + k)
  return seeds
}

/** Runs the cases of a shard. */
export function campaign(subject: Subject, options: CampaignOptions): CampaignResult {
  const seeds = seedsOf(options)
  const start = options.now()
  const since = (from: number) => (options.now() - from) / 1000
  const failures: CampaignFailure[] = []
  const blocks: Block[] = []
  let steps = 0
  let done = 0
  let block = { first: 0, count: 0, from: start }
  const endBlock = (last: number) => {
    const { first, count, from } = block
    if (count > 0) blocks.push({ first, last, count, seconds: since(from) })
    block = { first: 0, count: 0, from: options.now() }
  }
  for (const seed of seeds) {
    const result = subject.run(seed)
    steps += result.steps
    done++
    if (result.failure) {
      failures.push(result.failure)
      options.failed?.(result.failure)
    } else if (block.count++ === 0) block.first = seed
    if (block.count === BLOCK || done === seeds.length) endBlock(seed)
    options.progress?.({
      done,
      total: seeds.length,
      steps,
      failures: failures.length,
      seconds: since(start),
    })
    if (failures.length < options.failures) continue
    endBlock(seed)
    break
  }
  return {
    name: subject.name,
    seed: options.seed,
    shard: options.shard.join('/'),
    cases: done,
    steps,
    seconds: since(start),
    blocks,
    failures,
  }
}

/*
 * The process: owns all buffers, hands the devices plain pointers to them, and believes nothing that it
 * did not read back itself. Its exit code is the number of the first check that failed, 0 for none.
 */
#include "../abi.h"

int64_t system_call(uint64_t number, uint64_t a, uint64_t b, uint64_t c);

enum { OP_NOP = 0, OP_BATCH = 1, OP_COPY = 2, OP_FILL = 3, OP_COMPARE = 4, OP_CHECKSUM = 5 };
enum { RECORD = 1, INTERRUPT = 2, BLOCK = 4 };
enum { SUCCESS = 0x01, PAGE_FAULT = 0x03, PAGE_INVALID = 0x04, REFUSED = 0x07 };

struct descriptor {
	uint32_t pasid; /* the queue's is used */
	uint32_t flags_opcode; /* flags in bits 23:0, opcode above */
	uint64_t completion, source, destination;
	uint32_t length, reserved;
	uint64_t operand, reserved2[2];
} __attribute__((aligned(64)));

struct record {
	volatile uint8_t status;
	uint8_t result;
	uint16_t reserved;
	uint32_t bytes;
	uint64_t fault, value, reserved2;
} __attribute__((aligned(32)));

enum { BUFFER = 8192, RING_LOG2 = 3, RING = 1 << RING_LOG2 };
static uint8_t source[BUFFER] __attribute__((aligned(4096)));
static uint8_t target[BUFFER] __attribute__((aligned(4096)));
static struct record records[8];
static struct descriptor batch[3];
static struct descriptor rings[ENGINES][RING] __attribute__((aligned(4096)));
static uint32_t tails[ENGINES];

static int64_t stat(int which) { return system_call(SYS_STAT, (uint64_t)which, 0, 0); }

static void print(const char *text)
{
	uint64_t n = 0;
	while (text[n])
		n++;
	system_call(SYS_PRINT, (uint64_t)text, n, 0);
}

static uint32_t crc32(const uint8_t *bytes, uint64_t length)
{
	uint32_t c = ~0u;
	for (uint64_t i = 0; i < length; i++) {
		c ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			c = c >> 1 ^ (0xedb88320u & -(c & 1));
	}
	return ~c;
}

static uint64_t differences(const volatile uint8_t *a, const volatile uint8_t *b, uint64_t length)
{
	uint64_t n = 0;
	for (uint64_t i = 0; i < length; i++)
		n += a[i] != b[i];
	return n;
}

/* The descriptor of one operation; valid until the next call. */
static struct descriptor *make(int opcode, int flags, struct record *r, const void *from, void *to, uint32_t length)
{
	static struct descriptor d;
	r->status = 0;
	d = (struct descriptor){ .flags_opcode = (uint32_t)(flags | RECORD) | (uint32_t)opcode << 24,
				 .completion = (uint64_t)r, .source = (uint64_t)from,
				 .destination = (uint64_t)to, .length = length };
	return &d;
}

static void submit(int engine, const struct descriptor *d)
{
	rings[engine][tails[engine]] = *d;
	tails[engine] = (tails[engine] + 1) % RING;
	system_call(SYS_RING_TAIL, (uint64_t)engine, tails[engine], 0);
}

/* Submits to an engine's ring and waits for the record; its status. */
static int run_on(int engine, const struct descriptor *d, struct record *r)
{
	submit(engine, d);
	while (!r->status)
		__asm__ volatile("yield");
	__asm__ volatile("dmb ishld" : : : "memory"); /* the rest of the record is read after its status */
	return r->status & 0x7f;
}

static int run(const struct descriptor *d, struct record *r) { return run_on(ENGINE_PRI, d, r); }

static int copies_between_its_own_pages(void)
{
	print("copy 5000 bytes across a page boundary, unaligned\n");
	return run(make(OP_COPY, 0, &records[0], source + 100, target + 300, 5000), &records[0]) == SUCCESS &&
	       records[0].bytes == 5000 && !differences(source + 100, target + 300, 5000) && target[299] == 0 &&
	       target[5300] == 0;
}

static int fills_and_compares(void)
{
	print("fill a page with a pattern, compare it, find the byte the CPU changed\n");
	struct descriptor *d = make(OP_FILL, 0, &records[0], 0, target, 4096);
	d->operand = 0x1122334455667788ull;
	if (run(d, &records[0]) != SUCCESS || target[0] != 0x88 || target[4095] != 0x11)
		return 0;
	if (run(make(OP_COPY, 0, &records[1], target, target + 4096, 4096), &records[1]) != SUCCESS)
		return 0;
	if (run(make(OP_COMPARE, 0, &records[2], target, target + 4096, 4096), &records[2]) != SUCCESS || records[2].result)
		return 0;
	target[4096 + 1234] ^= 1;
	return run(make(OP_COMPARE, 0, &records[3], target, target + 4096, 4096), &records[3]) == SUCCESS &&
	       records[3].result == 1 && records[3].bytes == 1234;
}

static int agrees_on_a_checksum(void)
{
	print("checksum 8192 bytes; the CPU computes its own\n");
	return run(make(OP_CHECKSUM, 0, &records[0], source, 0, BUFFER), &records[0]) == SUCCESS &&
	       (uint32_t)records[0].value == crc32(source, BUFFER);
}

static int reports_a_missing_page(void)
{
	print("copy to a page that is not there, without waiting: partial completion\n");
	uint8_t *hole = (uint8_t *)(LAZY_BASE + 8 * PAGE);
	hole[0] = 1; /* the CPU's own fault brings this page in; the next one stays away */
	return run(make(OP_COPY, 0, &records[0], source, hole + PAGE - 256, 1024), &records[0]) == PAGE_FAULT &&
	       records[0].bytes == 256 && records[0].fault == (uint64_t)hole + PAGE &&
	       !differences(source, hole + PAGE - 256, 256) && stat(STAT_PAGE_REQUESTS) == 0;
}

static int waits_for_a_page(void)
{
	print("copy to a page that is not there, waiting: page request\n");
	uint8_t *lazy = (uint8_t *)LAZY_BASE;
	return run(make(OP_COPY, BLOCK, &records[0], source, lazy, 4096), &records[0]) == SUCCESS &&
	       stat(STAT_PAGE_REQUESTS) == 1 && !differences(source, lazy, 4096);
}

static int is_refused_outside_its_memory(void)
{
	print("copy from an address the process does not have: answered invalid\n");
	return run(make(OP_COPY, BLOCK, &records[0], (void *)0x7e3000000000ull, target, 64), &records[0]) == PAGE_INVALID &&
	       records[0].fault == 0x7e3000000000ull && stat(STAT_REFUSED) == 1;
}

static int asks_again_for_a_page_taken_away(void)
{
	print("take that page away from process and device, copy again: another page request\n");
	uint8_t *lazy = (uint8_t *)LAZY_BASE;
	return system_call(SYS_UNMAP, LAZY_BASE, 0, 0) == 0 &&
	       run(make(OP_COPY, BLOCK, &records[0], source + 4096, lazy, 2048), &records[0]) == SUCCESS &&
	       stat(STAT_PAGE_REQUESTS) == 2 && !differences(source + 4096, lazy, 2048) && lazy[2048] == 0;
}

static int stalls_for_a_page(void)
{
	print("second device, no page requests: its access stalls, is resumed\n");
	uint8_t *lazy = (uint8_t *)(LAZY_BASE + 16 * PAGE);
	return run_on(ENGINE_STALL, make(OP_COPY, 0, &records[0], source, lazy + 4000, 1000), &records[0]) == SUCCESS &&
	       records[0].bytes == 1000 && stat(STAT_STALLS) == 2 && !differences(source, lazy + 4000, 1000);
}

static int is_aborted_outside_its_memory(void)
{
	print("second device, an address the process does not have: resumed with abort\n");
	return run_on(ENGINE_STALL, make(OP_COPY, 0, &records[0], (void *)0x7e3000000000ull, target, 64), &records[0]) == REFUSED &&
	       records[0].fault == 0x7e3000000000ull && stat(STAT_REFUSED) == 2;
}

static int runs_a_batch(void)
{
	print("batch of two copies and a no-op\n");
	batch[0] = *make(OP_COPY, 0, &records[1], source, target, 512);
	batch[1] = *make(OP_NOP, 0, &records[2], 0, 0, 0);
	batch[2] = *make(OP_COPY, 0, &records[3], source + 512, target + 512, 512);
	return run(make(OP_BATCH, 0, &records[0], batch, 0, 3), &records[0]) == SUCCESS &&
	       records[0].bytes == 3 && records[2].status == SUCCESS && !differences(source, target, 1024);
}

static int takes_interrupts(void)
{
	print("both devices at once, completion by message through the ITS\n");
	int64_t before = stat(STAT_INTERRUPTS);
	submit(ENGINE_PRI, make(OP_FILL, INTERRUPT, &records[0], 0, target, 64));
	submit(ENGINE_STALL, make(OP_COPY, INTERRUPT, &records[1], source + 4096, target + 2048, 2048));
	return system_call(SYS_WAIT, (uint64_t)before + 2, 0, 0) == before + 2 && records[0].status == SUCCESS &&
	       records[1].status == SUCCESS && target[63] == 0 && !differences(source + 4096, target + 2048, 2048);
}

static int sleeps(void)
{
	print("sleep for 50 microseconds of the virtual timer\n");
	int64_t ticks = system_call(SYS_SLEEP, 50000, 0, 0);
	return ticks >= 50000 && ticks < 60000;
}

static int (*const checks[])(void) = {
	copies_between_its_own_pages, fills_and_compares, agrees_on_a_checksum, reports_a_missing_page,
	waits_for_a_page, is_refused_outside_its_memory, asks_again_for_a_page_taken_away, stalls_for_a_page,
	is_aborted_outside_its_memory, runs_a_batch, takes_interrupts, sleeps,
};

int main(void)
{
	for (uint32_t i = 0; i < BUFFER; i++)
		source[i] = (uint8_t)(i * 7 + (i >> 8) * 13 + 5);
	if (system_call(SYS_SVA_BIND, 0, 0, 0) < 1)
		return 1;
	for (int e = 0; e < ENGINES; e++)
		if (system_call(SYS_RING_OPEN, (uint64_t)e, (uint64_t)rings[e], RING_LOG2) != 0)
			return 1;
	for (uint32_t i = 0; i < sizeof checks / sizeof checks[0]; i++)
		if (!checks[i]()) {
			print("  NOT verified\n");
			return 2 + (int)i;
		}
	if (stat(STAT_SMMU_FAULTS) != 0 || system_call(SYS_SVA_UNBIND, 0, 0, 0) != 0)
		return 100;
	print("all verified by the process itself\n");
	return 0;
}

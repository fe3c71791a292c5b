/*
 * A guest that shares memory and takes it back. It asks for conversions by the hypercall MAP_GPA_RANGE, and its VMM, by
 * OUT to a port with the address of a request, to look at the shared side, to punch holes and to let a device run.
 *   main(program, base, step): program 1 conversions (D-29), 2 holes, 3 the tour of `vfio-emu run`.
 */
#include <stdint.h>

#define PAGE  4096ull
#define MIB2  (2ull << 20)
/* Memory of one vCPU: 2 MiB and a page, so that some range straddles a 2 MiB border. */
#define AREA  (MIB2 + PAGE)

enum request_kind {
	SYNC_SHARED = 1,  /* the host must read `pattern` in [gpa, gpa + size), and writes `fresh` there */
	SYNC_PRIVATE = 2, /* the host must read `pattern`, the shared copy of a private range */
	FALLOCATE = 3,    /* from now on conversions allocate or punch the file too, if `pattern` */
	PUNCH = 4,        /* punch [gpa, gpa + size) without a conversion */
	DONE = 5,
	FAIL = 6,         /* the guest read `fresh` at `gpa` where `pattern` belongs, in line `size` */
	DEVICE_READ = 7,  /* a device copies the page at gpa elsewhere: `fresh` becomes 1 if it could, `size` what it saw first */
	DEVICE_WRITE = 8, /* a device writes the byte `pattern` over the page: `fresh` becomes 1 if it could */
	HOST_READ = 9,    /* `fresh` becomes the byte that the host reads at gpa */
	SAY = 10,         /* the text at gpa, for people */
};

struct request {
	uint64_t kind, gpa, size, pattern, fresh;
};

enum { PORT_REQUEST = 0xe5 };
enum { KVM_HC_MAP_GPA_RANGE = 12, MAP_GPA_ENCRYPTED = 1 << 4 };

static void ask(struct request *r)
{
	__asm__ volatile("outl %0, %1" : : "a"((uint32_t)(uint64_t)r), "Nd"((uint16_t)PORT_REQUEST) : "memory");
}

static uint64_t request(uint64_t kind, uint64_t gpa, uint64_t size, uint64_t pattern, uint64_t fresh)
{
	struct request r = { kind, gpa, size, pattern, fresh };
	ask(&r);
	return r.fresh;
}

static _Noreturn void fail(int line, uint64_t gpa, uint64_t expected, uint64_t got)
{
	request(FAIL, gpa, (uint64_t)line, expected, got);
	for (;;)
		__asm__ volatile("hlt");
}

static void convert(uint64_t gpa, uint64_t size, int to_private)
{
	uint64_t result = KVM_HC_MAP_GPA_RANGE;
	__asm__ volatile("vmcall"
		: "+a"(result)
		: "b"(gpa), "c"(size / PAGE), "d"(to_private ? (uint64_t)MAP_GPA_ENCRYPTED : 0), "S"(0ull)
		: "memory");
	if (result != 0)
		fail(__LINE__, gpa, 0, result);
}

/* Bytes between the words that are written and looked at: 8 for every one, 4088 for the first and last of a page. */
static uint64_t step;

static uint64_t word(uint64_t pattern)
{
	return pattern * 0x0101010101010101ull;
}

static void fill(uint64_t gpa, uint64_t size, uint64_t pattern)
{
	for (uint64_t page = gpa; page < gpa + size; page += PAGE)
		for (uint64_t at = 0; at + 8 <= PAGE; at += step)
			*(volatile uint64_t *)(page + at) = word(pattern);
}

static void check(int line, uint64_t gpa, uint64_t size, uint64_t pattern)
{
	for (uint64_t page = gpa; page < gpa + size; page += PAGE)
		for (uint64_t at = 0; at + 8 <= PAGE; at += step)
			if (*(volatile uint64_t *)(page + at) != word(pattern))
				fail(line, page + at, word(pattern), *(volatile uint64_t *)(page + at));
}

static void sync_shared(uint64_t gpa, uint64_t size, uint64_t now, uint64_t fresh)
{
	request(SYNC_SHARED, gpa, size, now, fresh);
	check(__LINE__, gpa, size, fresh);
}

static void sync_private(uint64_t gpa, uint64_t size, uint64_t shared)
{
	request(SYNC_PRIVATE, gpa, size, shared, 0);
}

static const struct { uint64_t offset, size; } ranges[] = {
	{ 0, PAGE }, { 0, MIB2 }, { PAGE, PAGE }, { PAGE, MIB2 }, { MIB2, PAGE },
};
enum { RANGES = sizeof ranges / sizeof ranges[0] };

/* Everything around [gpa, gpa + size) in the area holds `pattern`. */
static void check_rest(uint64_t base, uint64_t gpa, uint64_t size, uint64_t pattern)
{
	check(__LINE__, base, gpa - base, pattern);
	check(__LINE__, gpa + size, base + AREA - (gpa + size), pattern);
}

static void conversions(uint64_t base, int fallocate)
{
	enum { INIT = 0xcc, P1 = 0x11, P2 = 0x22, P3 = 0x33, P4 = 0x44 };
	request(FALLOCATE, 0, 0, (uint64_t)fallocate, 0);
	fill(base, AREA, 0xaa);
	check(__LINE__, base, AREA, 0xaa);
	sync_shared(base, AREA, 0xaa, INIT);
	for (int i = 0; i < RANGES; i++) {
		uint64_t gpa = base + ranges[i].offset, size = ranges[i].size;

		fill(gpa, size, P1);
		convert(gpa, size, 1);
		fill(gpa, size, P2);
		sync_private(gpa, size, P1); /* the host keeps seeing the shared copy */
		check(__LINE__, gpa, size, P2);
		check_rest(base, gpa, size, INIT);

		/* Odd frames shared again: the copy survived, and takes a new pattern from the host. */
		for (uint64_t at = 0; at < size; at += PAGE) {
			if (!(at / PAGE & 1)) {
				if (at < 4 * PAGE || at + 4 * PAGE > size)
					sync_private(gpa + at, PAGE, P1);
				continue;
			}
			convert(gpa + at, PAGE, 0);
			sync_shared(gpa + at, PAGE, P1, P3);
		}
		for (uint64_t at = 0; at < size; at += 2 * PAGE)
			check(__LINE__, gpa + at, PAGE, P2); /* even frames kept what was private */

		convert(gpa, size, 0);
		fill(gpa, size, P3);
		sync_shared(gpa, size, P3, P4);
		fill(gpa, size, INIT);
		/* Private contents end here, whatever the conversions did with the file. */
		request(PUNCH, base, AREA, 0, 0);
		convert(gpa, size, 1);
		check(__LINE__, gpa, size, 0);
		convert(gpa, size, 0);
		check(__LINE__, base, AREA, INIT);
		request(PUNCH, base, AREA, 0, 0);
	}
}

static void holes(uint64_t base, int precise)
{
	convert(base, AREA, 1);
	for (int i = 0; i < RANGES; i++) {
		uint64_t gpa = base + ranges[i].offset, size = ranges[i].size;

		request(PUNCH, base, AREA, 0, 0);
		fill(precise ? gpa : base, precise ? size : AREA, 0xcc);
		check(__LINE__, precise ? gpa : base, precise ? size : AREA, 0xcc);
		request(PUNCH, gpa, size, 0, 0);
		check(__LINE__, gpa, size, 0);
		if (!precise)
			check_rest(base, gpa, size, 0xcc);
	}
	convert(base, AREA, 0);
}

static void say(const char *text)
{
	request(SAY, (uint64_t)text, 0, 0, 0);
}

static void expect(int line, uint64_t got, uint64_t wanted)
{
	if (got != wanted)
		fail(line, 0, wanted, got);
}

/* One page, from shared to private and back, with a device beside it. */
static void tour(uint64_t page)
{
	say("page shared: I write 0x11, the host and the device may look");
	fill(page, PAGE, 0x11);
	expect(__LINE__, request(HOST_READ, page, 0, 0, 0), 0x11);
	expect(__LINE__, request(DEVICE_READ, page, 0, 0, 0), 1);

	say("I make it private and write 0x22");
	convert(page, PAGE, 1);
	check(__LINE__, page, PAGE, 0);
	fill(page, PAGE, 0x22);
	expect(__LINE__, request(HOST_READ, page, 0, 0, 0), 0x11);
	expect(__LINE__, request(DEVICE_READ, page, 0, 0, 0), 0);
	expect(__LINE__, request(DEVICE_WRITE, page, 0, 0x66, 0), 0);
	check(__LINE__, page, PAGE, 0x22);

	say("shared again: the copy is as the host last saw it");
	convert(page, PAGE, 0);
	check(__LINE__, page, PAGE, 0x11);
	expect(__LINE__, request(DEVICE_WRITE, page, 0, 0x66, 0), 1);
	check(__LINE__, page, PAGE, 0x66);

	say("private once more: the file kept what I wrote");
	convert(page, PAGE, 1);
	check(__LINE__, page, PAGE, 0x22);
	say("a hole is punched: what was private is gone");
	request(PUNCH, page, PAGE, 0, 0);
	check(__LINE__, page, PAGE, 0);
	convert(page, PAGE, 0);
	say("everything was as it should be");
}

void main(uint64_t program, uint64_t base, uint64_t bytes)
{
	step = bytes;
	if (program == 1) {
		conversions(base, 0);
		conversions(base, 1);
	} else if (program == 2) {
		holes(base, 0);
		holes(base, 1);
	} else {
		tour(base);
	}
	request(DONE, 0, 0, 0, 0);
}

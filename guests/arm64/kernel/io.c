/* Console and exit: two registers of the VMM's. */
#include "kernel.h"

void print_bytes(const char *text, uint64_t length)
{
	for (uint64_t i = 0; i < length; i++)
		write8(boot.console, (uint8_t)text[i]);
}

void print(const char *text)
{
	while (*text)
		write8(boot.console, (uint8_t)*text++);
}

void print_hex(uint64_t value)
{
	int shift = 60;
	print("0x");
	while (shift > 0 && !(value >> shift & 15))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		write8(boot.console, (uint8_t)"0123456789abcdef"[value >> shift & 15]);
}

void leave(uint32_t code)
{
	write32(boot.console + 8, code);
	for (;;)
		__asm__ volatile("wfi");
}

void panic(const char *why, uint64_t value)
{
	print("kernel: ");
	print(why);
	print(" ");
	print_hex(value);
	print("\n");
	leave(0x80);
}

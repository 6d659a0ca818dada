/* What it is: AddressSanitizer's beginning, before that of any other library: libgpg-error's takes a lock of the C library
 * and then asks for memory, and the sanitizer, where it begins only then, gives that lock back. And UBSan's options.
 * Who calls it: the dynamic linker, by -z initfirst, where scripts/host-sanitized preloads it; UBSan.
 * Never: does anything else. */
void __asan_init(void);

__attribute__((constructor)) static void begin(void) {
    __asan_init();
}

const char *__ubsan_default_options(void) {
    return "print_stacktrace=1";
}

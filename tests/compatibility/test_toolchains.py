"""Compilers and build tools: what an agent that writes programs uses most; its files count by a stage."""

from __future__ import annotations

import pytest

from tests.compatibility.workbench import Workbench, needs

THREADS = r"""
#include <pthread.h>
#include <stdio.h>
static long total; static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *add(void *of) {
    for (int i = 0; i < 10000; i++) {
        pthread_mutex_lock(&lock); total += (long)of; pthread_mutex_unlock(&lock);
    }
    return 0;
}
int main(void) {
    pthread_t made[8];
    for (long i = 0; i < 8; i++) pthread_create(&made[i], 0, add, (void *)i);
    for (int i = 0; i < 8; i++) pthread_join(made[i], 0);
    printf("%ld\n", total);
}
"""
LIBRARY = "int twice(int x) { return 2 * x; }\n"
USER = '#include <stdio.h>\nint twice(int);\nint main(void) { printf("%d\\n", twice(21)); return 0; }\n'
MAKEFILE = """
CFLAGS = -O2 -Wall -Werror
parts := $(patsubst %,part%.o,$(shell seq 12))
all: prog
part%.o: ; echo 'int part$*(void) { return $*; }' > part$*.c && $(CC) $(CFLAGS) -c part$*.c -o $@
libtwice.a: twice.o $(parts) ; ar rcs $@ $^
prog: main.o libtwice.a ; $(CC) -o $@ main.o -L. -ltwice
check: prog ; test "$$(./prog)" = 42
clean: ; rm -f prog *.o *.a
.PHONY: all check clean
"""
CMAKE = """
cmake_minimum_required(VERSION 3.13)
project(answer C)
enable_testing()
add_library(twice SHARED twice.c)
add_executable(prog main.c)
target_link_libraries(prog twice)
add_test(NAME answers COMMAND prog)
set_tests_properties(answers PROPERTIES PASS_REGULAR_EXPRESSION "^42")
"""
CXX = r"""
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <regex>
#include <thread>
#include <vector>
int main() {
    std::vector<int> v{3, 1, 2};
    std::thread([&] { std::sort(v.begin(), v.end()); }).join();
    try { throw std::runtime_error("caught"); } catch (const std::exception &e) { std::cout << e.what(); }
    std::cout << ' ' << v[0] << std::filesystem::exists("a.cc");
    std::cout << std::regex_match("ab12", std::regex("[a-z]+\\d+")) << '\n';
}
"""
GO = """
package main
import "fmt"
func main() { c := make(chan int); go func() { c <- 42 }(); fmt.Println(<-c) }
"""
RUST = """
fn main() {
    let threads = (1..=8).map(|x| std::thread::spawn(move || x));
    println!("{}", threads.map(|t| t.join().unwrap()).sum::<i32>());
}
"""
JAVA = """
import java.util.stream.*;
class Main { public static void main(String[] a) throws Exception {
    Thread t = new Thread(() -> System.out.println(IntStream.rangeClosed(1, 8).parallel().sum()));
    t.start(); t.join();
} }
"""
FROM_A_PIPE = "echo 'int main(void){return 7;}' | gcc -xc - -o seven -flto; ./seven; echo $?"


@needs("gcc")
def test_gcc_makes_a_threaded_program_when_asked(work: Workbench) -> None:
    """Compiled, linked, run on eight threads; then by link-time optimisation, from a pipe."""
    work.file("t.c", THREADS)
    assert (
        work.output("gcc -O2 -Wall -pthread t.c -o t && ./t && file -b t | cut -d' ' -f1") == "280000\nELF\n"
    )
    assert work.output(FROM_A_PIPE) == "7\n"


@needs("gcc", "make")
def test_make_builds_in_parallel_and_rebuilds_what_changed(work: Workbench) -> None:
    """-j 4 over a dozen files on a stage; after an edit only what depends on it is made again."""
    for name, content in {"twice.c": LIBRARY, "main.c": USER, "Makefile": MAKEFILE}.items():
        work.file(name, content)
    changes = work.changes("make -s -j4 check")
    assert changes["prog"] == "created"
    assert {f"part{number}.o" for number in range(1, 13)} < set(changes)
    assert work.output("make -s check && make -n", "staged") == "make: Nothing to be done for 'all'.\n"
    again = work.changes("sleep 0.01; touch main.c; make -s check")
    assert set(again) == {"main.c", "main.o", "prog"}
    assert "prog" in work.changes("make -s clean")


@needs("cmake", "gcc", "make")
@pytest.mark.parametrize("generator", ["Unix Makefiles", pytest.param("Ninja", marks=needs("ninja"))])
def test_cmake_configures_builds_and_tests(work: Workbench, generator: str) -> None:
    """Out of the tree, with a shared library and ctest, all on one stage."""
    for name, content in {"twice.c": LIBRARY, "main.c": USER, "CMakeLists.txt": CMAKE}.items():
        work.file(name, content)
    text = work.output(
        f"cmake -G '{generator}' -S . -B out > log && cmake --build out -j 2 >> log && cd out && ctest",
        "staged",
    )
    assert "100% tests passed, 0 tests failed out of 1" in text
    assert (work.workspace / "out" / "prog").exists()


@needs("g++")
def test_gxx_makes_a_modern_program(work: Workbench) -> None:
    """Exceptions, threads, files and regular expressions of the standard library."""
    work.file("a.cc", CXX)
    assert work.output("g++ -std=c++17 -pthread a.cc -o a && ./a") == "caught 111\n"


@needs("gcc", "ccache")
def test_ccache_finds_what_was_compiled_before(work: Workbench) -> None:
    """The second time from its cache in HOME, which the sandbox has of its own."""
    work.file("twice.c", LIBRARY)
    assert "Hits:" in work.output("ccache gcc -c twice.c && rm twice.o && ccache gcc -c twice.c && ccache -s")
    assert (work.workspace / "twice.o").exists()


@needs("gcc", "valgrind")
def test_valgrind_finds_a_leak(work: Workbench) -> None:
    """It runs the program itself and needs no tracing."""
    work.file("l.c", "#include <stdlib.h>\nint main(void) { return malloc(77) == 0; }\n")
    text = work.output("gcc -g l.c -o l && valgrind --leak-check=full ./l 2>&1")
    assert "definitely lost: 77 bytes in 1 blocks" in text


@needs("go")
def test_go_builds_and_runs_a_program(work: Workbench) -> None:
    """Goroutines over the run time's own threads."""
    work.file("main.go", GO)
    assert work.output("GOFLAGS=-mod=mod GOCACHE=$PWD/cache go run main.go") == "42\n"


@needs("rustc", "gcc")
def test_rustc_builds_a_threaded_program(work: Workbench) -> None:
    """Eight threads, their results joined."""
    work.file("main.rs", RUST)
    assert work.output("rustc -O main.rs && ./main") == "36\n"


@needs("cargo", "gcc")
def test_cargo_builds_and_tests_a_package_offline(work: Workbench) -> None:
    """Its init, test and run, without a registry."""
    text = work.output(
        "cargo init -q --vcs none --name x . && cargo test -q --offline 2>&1 && cargo run -q --offline"
    )
    assert text.endswith("Hello, world!\n")


@needs("javac")
def test_java_compiles_and_runs_a_program(work: Workbench) -> None:
    """The compiler and the machine, whose heap is chosen by the limits it finds."""
    work.file("Main.java", JAVA)
    assert work.output("javac Main.java && java Main") == "36\n"


@needs("gcc", "gdb")
def test_program_that_crashes_is_told_apart(work: Workbench) -> None:
    """A segmentation fault is the shell's 139, and leaves no core file."""
    work.file("c.c", "int main(void) { *(volatile int *)0 = 1; }\n")
    assert work.output("gcc c.c -o c; ./c; echo $?; ls").splitlines()[-3:] == ["139", "c", "c.c"]

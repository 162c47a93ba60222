/* Under sanitizers tests of numbers repeat what the plain build has shown, an order slower: they take a part of their cases there. */
#ifndef QUIRE_TESTS_SANITIZED_H
#define QUIRE_TESTS_SANITIZED_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

#endif

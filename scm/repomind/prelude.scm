;;; prelude.scm --- the few list helpers that every policy may want.
;;;
;;; Pure functions on lists. Lists here are short (regions, siblings, probes),
;;; so plain recursion is chosen over speed.

(provide every any first-that index-of sort-by without unique best-by)

;;@doc
;; #t when (test x) holds for each x of the list; #t for the empty list.
(define (every test items)
  (cond [(null? items) #t]
        [(test (car items)) (every test (cdr items))]
        [else #f]))

;;@doc
;; #t when (test x) holds for at least one x of the list.
(define (any test items)
  (cond [(null? items) #f]
        [(test (car items)) #t]
        [else (any test (cdr items))]))

;;@doc
;; The first x of the list for which (test x) holds, or #f.
(define (first-that test items)
  (cond [(null? items) #f]
        [(test (car items)) (car items)]
        [else (first-that test (cdr items))]))

;;@doc
;; Where x stands in the list, from 0, or #f.
(define (index-of x items)
  (let loop ([rest items] [at 0])
    (cond [(null? rest) #f]
          [(equal? x (car rest)) at]
          [else (loop (cdr rest) (+ at 1))])))

;;@doc
;; The list in the order of (before? a b); what is equal keeps its order.
(define (sort-by before? items)
  (define (insert x sorted)
    (cond [(null? sorted) (list x)]
          [(before? x (car sorted)) (cons x sorted)]
          [else (cons (car sorted) (insert x (cdr sorted)))]))
  (foldl insert '() items))

;;@doc
;; The list without the items equal to x.
(define (without x items)
  (filter (lambda (item) (not (equal? item x))) items))

;;@doc
;; The list with each item once, where it stood first.
(define (unique items)
  (if (null? items)
      '()
      (cons (car items) (unique (without (car items) (cdr items))))))

;;@doc
;; The item that (better? it other) prefers to all others; the first of equals.
;; The list must not be empty.
(define (best-by better? items)
  (foldl (lambda (item best) (if (better? item best) item best))
         (car items)
         (cdr items)))

;;; verdicts.scm --- what a residency policy answers, and what it is asked about.
;;;
;;; Anything other than these lists is taken as a denial. A rule is a symbol: it
;;; stands in refusals, audits and reports, so name it after what it demands.

(require-builtin repomind/host)
(provide record-class record-law record-basis record-purpose
         allow-in allow deny define-region-policy)

;;@doc
;; The regions of these ids may hold the record; no other may.
(define (allow-in ids rule obligations)
  (list 'allow-in ids rule obligations))

;;@doc
;; Yes, with these duties.
(define (allow rule obligations)
  (list 'allow rule obligations))

;;@doc
;; No.
(define (deny rule)
  (list 'deny rule))

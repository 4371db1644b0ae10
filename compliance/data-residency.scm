;;; data-residency.scm --- where a record may be, and where it may travel.
;;;
;;; Asked:    for each case (class, law, basis, purpose) when facts change; the answers
;;;           are kept as a plan. A record with several labels gets the strictest.
;;; Returns:  (allow-in ids 'rule duties), (allow 'rule duties) or (deny 'rule).
;;; On error: denied. These are encoded rules, not legal advice: have them checked.

(require "repomind/regions.scm")
(require "repomind/verdicts.scm")
(require "repomind/invariants.scm")
(require "repomind/testing.scm")
(provide policy-api residency transfer)

(define policy-api 1)

;; About nobody: may be anywhere.
(define free-classes '(public operational source-code))

;; These keep personal data at home: Russia 242-FZ; China PIPL, taken strictly
;; because its thresholds count people and no single record can show them.
(define localised '(RU CN))

;; Taken as the measure for everyone: the laws, among those that the runtime tells apart,
;; with an adequacy decision of the EU Commission. GB runs to 2031-12-27; CA covers only
;; recipients under PIPEDA.
(define adequate '(eea GB CH CA JP KR BR))

;; The US counts only for recipients certified under the Data Privacy Framework, which
;; is under appeal (C-703/25 P, June 2026). Set to #f when you are not, or when it falls.
(define us-framework? #t)

(define (adequate? law) (or (member law adequate) (and us-framework? (equal? law 'US))))

;; The rule for a record: its name, the laws of the regions that may hold it, the duties.
(define (rule-for record)
  (define class (record-class record))
  (cond [(member class free-classes) (rule 'not-personal-goes-anywhere (lambda (there) #t) '())]
        [(equal? class 'credentials) (rule 'credentials-avoid-localising-states not-localised? sealed)]
        [else (personal-rule (record-law record))]))

(define sealed '(encrypt-at-rest))
(define (not-localised? there) (not (member there localised)))

(define (personal-rule law)
  (define (home? there) (and (equal? there law) (not (equal? law 'other))))
  (cond [(equal? law 'none) (rule 'personal-must-state-jurisdiction (lambda (there) #f) '())]
        [(equal? law 'eea) (rule 'eea-personal-stays-in-eea home? sealed)]
        [(member law localised) (rule 'localised-personal-stays-home home? sealed)]
        [else (rule 'personal-home-or-adequate (lambda (there) (or (home? there) (adequate? there))) sealed)]))

;;@doc
;; Which of all regions may hold the record.
(define (residency record) (rule-residency (rule-for record) (all-regions)))

;;@doc
;; Whether it may travel: only between regions that may both hold it.
(define (transfer record from to) (rule-transfer (rule-for record) from to))

(define-invariant "personal data of the EEA is held in the EEA only"
  (for-all (record region)
    (implies (and (personal? (record-class record)) (equal? (record-law record) 'eea)
                  (not (equal? (region-law region) 'eea)))
             (not (holds-in? (residency record) (region-id region))))))

(define-invariant "nothing travels to or from a region that may not hold it"
  (for-all (record from to)
    (define ruling (residency record))
    (implies (may-travel? (transfer record from to))
             (and (holds-in? ruling (region-id from)) (holds-in? ruling (region-id to))))))

(define-invariant "data that a law keeps at home is never abroad"
  (for-all (record region)
    (implies (and (personal? (record-class record)) (member (record-law record) localised)
                  (not (equal? (record-law record) (region-law region))))
             (not (holds-in? (residency record) (region-id region))))))

(define us (sample-region 'us-east))
(define ireland (sample-region 'eu-west #:country "IE"))
(define germany (sample-region 'eu-central #:country "DE"))
(define moscow (sample-region 'ru-central #:country "RU"))
(define everywhere (list us ireland germany moscow (sample-region 'ap-southeast #:country "SG")))
(define (personal law) (sample-record #:class 'personal #:law law))
(define (ruling record . regions) (rule-residency (rule-for record) (if (null? regions) everywhere regions)))
(define (homes record) (if (equal? (car (ruling record)) 'allow-in) (cadr (ruling record)) '()))

(test-module "data-residency"
  (check-equal? "personal data of the EEA stays there, and a new region there takes part"
                (homes (personal 'eea)) '(eu-west eu-central))
  (check-equal? "health data is personal data" (homes (sample-record #:class 'health #:law 'eea)) '(eu-west eu-central))
  (check-equal? "it may travel within the EEA" (car (transfer (personal 'eea) ireland germany)) 'allow)
  (check-equal? "and not out of it, nor into it from outside"
                (list (transfer (personal 'eea) ireland us) (transfer (personal 'eea) us ireland))
                (list (deny 'eea-personal-stays-in-eea) (deny 'eea-personal-stays-in-eea)))
  (check-equal? "Russian data stays in Russia; Chinese data has no home here"
                (list (homes (personal 'RU)) (homes (personal 'CN))) '((ru-central) ()))
  (check-equal? "Singapore's may be at home or where protection is adequate"
                (homes (personal 'SG)) '(us-east eu-west eu-central ap-southeast))
  (check-equal? "two unnamed laws are not one home"
                (ruling (personal 'other) (sample-region 'x #:country "KE")) (deny 'personal-home-or-adequate))
  (check-equal? "personal data of unstated law is nowhere" (homes (personal 'none)) '())
  (check-equal? "what is asked is asked about the regions of this tree"
                (cadr (residency (sample-record))) (region-ids (all-regions)))
  (check-equal? "public data is everywhere" (length (homes (sample-record #:class 'public #:law 'eea))) 5))
